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
from dataclasses import replace
from typing import Any, Final, cast

from pipeline.domain import Failure, Stage
from pipeline.errors import ClusterError, TooSlowError, WorkerLostError
from pipeline.runner.images import Carried, Equipment
from pipeline.urls import redact

# For its imports and its model, on a busy machine.
START_PATIENCE_S: Final = 120.0


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
            stage: Stage = "resize"
            child = self._hand_over(carried)
            try:
                while not isinstance(answer := child.receive(self._equipment.timeout_s(stage)), Carried):
                    stage = cast(Stage, answer)
            except TimeoutError:
                self.close()
                error: Exception = TooSlowError(f"it took more than {self._equipment.timeout_s(stage):g} s")
            except (EOFError, OSError):
                error = WorkerLostError(f"it crashed the process that handled it ({child.end()})")
                self._child = None
            else:
                return answer
        failure = Failure.from_error(stage, error, subject=redact(carried.item.url))
        return replace(carried, payload=None, failure=failure)

    def _hand_over(self, carried: Carried) -> _Child:
        if self._child:
            try:
                self._child.send(carried)
                return self._child
            except OSError:
                # It was ended from outside, while it had no image.
                self.close()
        child = self._child = self._start()
        child.send(carried)
        return child

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
            raise ClusterError(f"cannot start a process for images that end theirs ({child.end()})") from error
        return child


class _Child:
    """The process, and the conversation with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.runner.sandbox.child"],
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

    def end(self) -> str:
        """End the process; return how it ended by itself, if it did."""
        # Without input, it ends by itself, unless it hangs. What was not sent is lost.
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._process.kill()
        code = self._process.wait()
        self._reader.shutdown()
        self._process.stdout.close()  # type: ignore[union-attr]
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
