"""A run of a job in a thread of this process."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pipeline.runner.driver import Driver

# How long a process that ends waits for its run to end.
LEAVE_PATIENCE_S: Final = 20.0


class LocalRun:
    """Runs a driver in a thread, and ends it cleanly, so that it can be resumed, before its process ends.

    Parameters
    ----------
    driver : Driver
    on_end : callable
        Called in that thread when the run has ended, however it did.
    """

    def __init__(self, driver: Driver, on_end: Callable[[], None]) -> None:
        self.driver = driver
        self._on_end = on_end
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"pipeline-driver-{driver.job.id}", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether it is not over yet, its cluster's end included."""
        return self._thread.is_alive()

    @property
    def goes_on(self) -> bool:
        """Whether it works on its job, and nobody has asked it to stop."""
        return self.is_alive and not self._is_stopping and not self.driver.latest.is_finished

    def start(self) -> None:
        """Start it."""
        atexit.register(self._end_with_process)
        self._thread.start()

    def cancel(self) -> None:
        """Ask it to stop."""
        self._is_stopping = True
        self.driver.cancel()

    def leave(self) -> None:
        """Ask it to stop, and to leave the job to the next queue worker."""
        self._is_stopping = True
        self.driver.leave()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until it is over."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self.driver.run()
        finally:
            atexit.unregister(self._end_with_process)
            self._on_end()

    def _end_with_process(self) -> None:
        self.cancel()
        self._thread.join(LEAVE_PATIENCE_S)
