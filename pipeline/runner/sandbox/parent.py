"""A child process of a worker in which an image may crash, hang or eat memory: it costs nobody else anything.

What lost its worker once is made here, one image after the other, so that it is known of which one the process died.
This is no wall against an attacker who takes the process over: it has the rights of the worker.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, Self, cast

from pipeline.domain import Failure, Stage
from pipeline.errors import ClusterError, StageError, TooHeavyError, TooSlowError, WorkerLostError
from pipeline.runner.images import Carried, Equipment
from pipeline.urls import redact

# For its imports and its model, on a busy machine.
START_PATIENCE_S: Final = 120.0
# With which it ends if it has no memory for what it is given.
MEMORY_EXIT_CODE: Final = 76


class Sandbox:
    """Makes images in a child process, which is started for the first one and anew after each that it dies of.

    Parameters
    ----------
    equipment : Equipment
        Of the worker: tells what an image may take.
    parameters : tuple
        What the child makes its own Equipment of: the type and its arguments.
    """

    def __init__(self, equipment: Equipment, parameters: tuple[Any, ...]) -> None:
        self._equipment = equipment
        self._parameters = parameters
        self._child: _Child | None = None
        self._turn = threading.Lock()

    def make(self, carried: Carried) -> Carried:
        """Resize, enhance and encode an image; return it encoded or failed. One at a time, from any thread.

        Raises
        ------
        ClusterError
            If the process cannot be started.
        """
        with self._turn:
            made = self._try(carried)
            if isinstance(made, _Ended) and made.may_be_from_outside:
                made = self._try(carried)
        if isinstance(made, Carried):
            return made
        failure = Failure.from_error(made.stage, made.error, subject=redact(carried.item.url))
        return replace(carried, payload=None, failure=failure)

    def _try(self, carried: Carried) -> Carried | _Ended:
        if self._child and not self._child.is_alive:
            # It was ended from outside, while it had no image.
            self.close()
        child = self._child = self._child or self._start()
        stage: Stage = "resize"
        try:
            child.send(carried)
            while not isinstance(answer := child.receive(self._equipment.timeout_s(stage)), Carried):
                stage = cast(Stage, answer)
        except TimeoutError:
            self.close()
            return _Ended(stage, TooSlowError(f"it took more than {self._equipment.timeout_s(stage):g} s"))
        except (EOFError, OSError):
            self._child = None
            return _Ended.by_itself(stage, child.end())
        return answer

    def close(self) -> None:
        """End the process."""
        if self._child:
            self._child.end()
            self._child = None

    def _start(self) -> _Child:
        child = _Child()
        try:
            child.send(self._parameters)
            child.receive(START_PATIENCE_S)
        except (EOFError, OSError) as error:
            raise ClusterError(f"cannot start a process for images that end theirs (status {child.end()})") from error
        return child


@dataclass(frozen=True, slots=True)
class _Ended:
    """How the process ended of an image, or perhaps because somebody or the kernel has ended it."""

    stage: Stage
    error: StageError
    may_be_from_outside: bool = False

    @classmethod
    def by_itself(cls, stage: Stage, code: int) -> Self:
        """Say what it means that it ended with a status."""
        if code == MEMORY_EXIT_CODE:
            return cls(stage, TooHeavyError("there is not enough memory for it"))
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        error = WorkerLostError(f"it crashed the process that handled it ({how})")
        return cls(stage, error, may_be_from_outside=-code in {signal.SIGKILL, signal.SIGTERM})


class _Child:
    """The process, and the conversation with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            # The folder that the worker happens to be in may be a stranger's: nothing is imported from there.
            [sys.executable, "-P", "-m", "pipeline.runner.sandbox.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # What the worker can import, it can.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="pipeline-sandbox")

    def send(self, message: object) -> None:
        """Send an object."""
        assert self._process.stdin
        pickle.dump(message, self._process.stdin, pickle.HIGHEST_PROTOCOL)
        self._process.stdin.flush()

    def receive(self, timeout_s: float) -> object:
        """Wait for an object.

        Raises
        ------
        TimeoutError
            If none comes in time.
        EOFError, OSError
            If the process is gone.
        """
        answer: Future[object] = self._reader.submit(pickle.load, self._process.stdout)  # type: ignore[arg-type]
        try:
            return answer.result(timeout_s)
        except pickle.UnpicklingError as error:
            # It died while it wrote.
            raise EOFError from error

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def end(self) -> int:
        """End the process; return the status with which it ended by itself, if it did."""
        # Without input, it ends by itself, unless it hangs. What was not sent is lost.
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._process.kill()
        code = self._process.wait()
        self._reader.shutdown()
        self._process.stdout.close()  # type: ignore[union-attr]
        return code
