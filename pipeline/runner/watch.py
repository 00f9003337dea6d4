"""Ends a worker process in which an image hangs: no thread can be ended from outside.

Two watch each other: a Python thread looks whether a step has gone on for too long; and since code that hangs may keep
the interpreter's lock, so that no Python thread runs, a timer of `faulthandler`, which needs no lock, ends the process
unless that thread puts it off again and again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from typing import Final

_LOOK_S: Final = 0.5
# How long the lock may be kept beyond what a step may take: a model that loads keeps it for seconds.
_LOCK_PATIENCE_S: Final = 30.0
EXIT_CODE: Final = 75


class StepWatch:
    """Watches the steps of this process; while there are none, nothing.

    The process ends with `EXIT_CODE` when one takes longer than it may; whoever runs it notices that it is gone.
    """

    def __init__(self) -> None:
        self._deadline_by_step: dict[object, float] = {}
        self._longest_s = 0.0
        # What begins or ends the watch: the first step may keep the interpreter's lock from the thread for ever.
        self._changing = threading.Lock()
        self._is_needed = threading.Event()
        self._thread: threading.Thread | None = None
        # Whom would its traceback tell anything? The image is named when it is tried again.
        self._nowhere = os.open(os.devnull, os.O_WRONLY)

    @contextlib.contextmanager
    def step(self, timeout_s: float) -> Iterator[None]:
        """Watch a block; from any thread."""
        step = object()
        with self._changing:
            self._longest_s = max(self._longest_s, timeout_s)
            self._deadline_by_step[step] = time.monotonic() + timeout_s
            if not self._is_needed.is_set():
                self._begin()
        try:
            yield
        finally:
            with self._changing:
                del self._deadline_by_step[step]

    def _begin(self) -> None:
        self._put_off()
        self._is_needed.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="pipeline-watch", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while self._is_needed.wait():
            with self._changing:
                now = time.monotonic()
                if any(now > deadline for deadline in self._deadline_by_step.values()):
                    os._exit(EXIT_CODE)
                if self._deadline_by_step:
                    self._put_off()
                else:
                    self._is_needed.clear()
                    faulthandler.cancel_dump_traceback_later()
            time.sleep(_LOOK_S)

    def _put_off(self) -> None:
        faulthandler.dump_traceback_later(self._longest_s + _LOCK_PATIENCE_S, exit=True, file=self._nowhere)
