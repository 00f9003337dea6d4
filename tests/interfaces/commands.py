"""The command line as a user has it: real processes, and what they leave."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

# What a run decides; the other columns tell when and how fast.
COLUMNS = ["key", "url", "status", "width", "height", "bytes_in", "bytes_out", "sha256", "stage", "error"]


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines of its standard output; an error if there is anything else."""
        return [json.loads(line) for line in self.out.splitlines()]


class Running:
    """A command that runs, the first process of a session of its own, as a shell's job on a terminal is."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
        self._popen = subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._popen.pid

    def family(self) -> list[psutil.Process]:
        """Return the process, its workers and whatever else it started."""
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    def interrupt(self) -> None:
        """Do what Ctrl-C in a terminal does: the whole group gets the signal."""
        os.killpg(self.pid, signal.SIGINT)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process itself."""
        self._popen.send_signal(number)

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    def wait_until(self, condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
        """Wait until `condition` holds; the test fails if the process ends before."""
        wait_until(lambda: condition() or not self.is_running(), what, timeout_s)
        assert condition(), f"{what}: not before the end of the process, {self.end()}"

    def end(self, timeout_s: float = 150.0) -> Ended:
        """Wait for its end; if that does not come, the test fails with what every process is doing."""
        try:
            out, err = self._popen.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            if not self.is_running():
                pytest.fail(f"{self._popen.args}: has ended, but what it started still holds its output")
            for process in self.family():
                process.send_signal(signal.SIGABRT)
            out, err = self._popen.communicate(timeout=10)
            pytest.fail(f"{self._popen.args}: not ended within {timeout_s:g} seconds\n{out}\n{err}")
        return Ended(self._popen.returncode, out, err)


@dataclass(frozen=True)
class Pipeline:
    """``python -m pipeline`` in an environment and a folder.

    Attributes
    ----------
    cwd : Path
    environment : mapping of str to str
        Added to that of the tests.
    """

    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: object) -> Ended:
        """Run a command to its end."""
        with self.start(*arguments) as running:
            return running.end()

    @contextmanager
    def start(self, *arguments: object) -> Iterator[Running]:
        """Start a command; what is left of it at the end of the with-block is killed."""
        with self.start_python("-m", "pipeline", *arguments) as running:
            yield running

    @contextmanager
    def start_python(self, *arguments: object) -> Iterator[Running]:
        """Start Python."""
        running = Running([sys.executable, *map(str, arguments)], self.environ(), self.cwd)
        try:
            yield running
        finally:
            if running.is_running():
                family = running.family()
                for process in family:
                    process.kill()
                running.end()

    def environ(self) -> dict[str, str]:
        """Return the environment of its processes: nothing of the tests' own settings, plain text, any width."""
        unset = {"REDIS_URL", "KERAS_BACKEND", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "TERM"}
        kept = {
            name: value for name, value in os.environ.items() if name not in unset and not name.startswith("PIPELINE_")
        }
        root = str(Path(__file__).parents[2])
        return {**kept, "PYTHONPATH": root, "TERM": "xterm", "PYTHONFAULTHANDLER": "1", **self.environment}


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Look again and again until `condition` holds; the test fails if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} seconds"
        time.sleep(0.02)


def ledger_rows(destination: Path, job_id: str) -> list[dict[str, Any]]:
    """Return what a job's ledger says that a run decides, in the order of the keys."""
    parts = sorted((destination / "_ledger" / job_id).glob("*.parquet"))
    rows = [row for part in parts for row in pq.read_table(part, columns=COLUMNS).to_pylist()]
    return sorted(rows, key=lambda row: str(row["key"]))


def stored_bytes(destination: Path) -> dict[str, str]:
    """Return the hash of each stored file, by its path below the destination."""
    return {
        str(path.relative_to(destination)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in destination.rglob("*")
        # A process that is killed while it writes leaves its temporary file, under a name that nobody takes for it.
        if path.is_file() and "_ledger" not in path.parts and path.suffix != ".part"
    }
