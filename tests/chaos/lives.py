"""Drivers as processes of their own that die at a certain moment, and one after the other go on with a job.

They are forked from a process that has imported everything, so that a life is short but for its work.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

import pipeline
from pipeline.domain import Output
from pipeline.errors import JobNotFoundError
from pipeline.state import JobStore
from pipeline.state.script import JobScript
from tests.chaos.oracle import SMALL

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["pandas", "pyarrow.parquet", "s3fs", "pipeline.launch", "pipeline.runner.driver", "tests.chaos.lives"]
)

# What changes a file or folder, as Python's audit events call it; "open" does if it is not for reading.
_CHANGES: Final = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"})
_WRITES: Final = os.O_WRONLY | os.O_RDWR

Prepare = Callable[[], None]


@dataclass(frozen=True)
class Plan:
    """A job, and what its drivers need to run it.

    Attributes
    ----------
    collection, out : Path
    redis_url, scheduler : str
    job_id : str
    output : {"files", "webdataset"}
    flush_s : float
        How often the ledger is written; in earnest it is every 3 seconds, and a life would often not see it.
    shard_bytes : int
        So small that a small job has several shards.
    options : mapping
        Of `pipeline.run`.
    """

    collection: Path
    out: Path
    redis_url: str
    scheduler: str | None
    job_id: str = "storm"
    output: Output = "files"
    flush_s: float = 0.25
    shard_bytes: int = 40_000
    options: Mapping[str, Any] = field(default_factory=dict)

    def run_here(self) -> pipeline.JobHandle:
        """Run the job in this process, or go on with it."""
        from pipeline.runner import loop, shards

        os.environ["REDIS_URL"] = self.redis_url
        loop.FLUSH_INTERVAL_S = self.flush_s  # type: ignore[misc]
        shards.SHARD_BYTES = self.shard_bytes  # type: ignore[misc]
        return pipeline.run(
            self.collection,
            self.out,
            SMALL,
            job_id=self.job_id,
            output=self.output,
            cluster=self.scheduler,
            allow_private=True,
            retries=0,
            **self.options,
        )

    def begin(self, prepare: Prepare | None = None) -> ForkServerProcess:
        """Start a driver that first does something to itself.

        Its exit code is 0 if the job has completed, 3 if it ended otherwise, and minus a signal's number if that ended
        it.
        """
        process = _CONTEXT.Process(target=_live, args=(self, prepare), daemon=True)
        process.start()
        return process

    def complete(self) -> None:
        """Have a driver do what is left, undisturbed."""
        process = self.begin()
        assert end_of(process) == 0


def end_of(process: ForkServerProcess, timeout_s: float = 120) -> int:
    """Wait for the end of a driver; return its exit code."""
    process.join(timeout_s)
    assert process.exitcode is not None, f"not ended within {timeout_s:g} s"
    return process.exitcode


def images_of(store: JobStore, plan: Plan) -> int:
    """Return how many images a job has stored, as everybody sees."""
    try:
        return store.progress(plan.job_id).stored
    except JobNotFoundError:
        return 0


def _live(plan: Plan, prepare: Prepare | None) -> None:
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for as long as the process lives
    if prepare:
        prepare()
    progress = plan.run_here().wait()
    # Not through atexit: a life is short.
    os._exit(0 if progress.status == "completed" else 3)


@dataclass(frozen=True)
class DieAtNewWrite:
    """Ends the process, as the kernel ends one, before its first write at which none has died yet.

    A write is known by its kind and by how many of that kind the life had before, up to `most`.

    Attributes
    ----------
    place : Path
        What changes below it counts, and what changes Redis, before and after.
    died_at : frozenset of str
        The writes at which others have died.
    last_words : Path
        Gets the name of the write.
    most : int
    """

    place: Path
    died_at: frozenset[str]
    last_words: Path
    most: int = 2

    def __call__(self) -> None:
        place = os.fspath(self.place)
        counts: Counter[str] = Counter()
        one_at_a_time = threading.Lock()

        def meet(kind: str) -> None:
            with one_at_a_time:
                counts[kind] += 1
                write = f"{kind} {counts[kind]}"
                if counts[kind] <= self.most and write not in self.died_at:
                    self.last_words.write_text(write)
                    os.kill(os.getpid(), signal.SIGKILL)

        def hear(event: str, arguments: tuple[Any, ...]) -> None:
            if event in _CHANGES and (event != "open" or _is_for_writing(arguments)):
                path = arguments[1 if event == "os.link" else 0]
                if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(place):
                    meet(f"{event} {_kind_of(os.fspath(path)[len(place) :])}")

        sys.addaudithook(hear)
        change_redis = JobScript.run

        def run(script: JobScript, change: str, *arguments: Any) -> Any:
            if change in {"read", "list", "show", "count"}:
                return change_redis(script, change, *arguments)
            meet(f"before {change}")
            answer = change_redis(script, change, *arguments)
            meet(f"after {change}")
            return answer

        JobScript.run = run  # type: ignore[method-assign]


def _kind_of(path: str) -> str:
    """Return what is at a path: a part of a ledger, a piece, a packed shard …, whatever its name."""
    name = path.rpartition("/")[2]
    found = re.match(r"(part|_probe|_checkpoint)-|.*[.](part|piece|packed|tar)$", name)
    return (found[1] or f".{found[2]}") if found else next(iter(path.split("/")[1:]), "")


def _is_for_writing(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return bool(flags & _WRITES) if mode is None or not isinstance(mode, str) else mode[:1] in {"w", "x", "a"}
