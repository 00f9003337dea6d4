"""The one thread that writes a running job's state to Redis."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from pipeline.domain import Progress
from pipeline.errors import LeaseLostError, StateError
from pipeline.runner.tenure import Tenure

log = logging.getLogger(__name__)

# At most ten snapshots a second; and one now and then when nothing changes, to keep the lease and to hear of a cancel.
PUBLISH_INTERVAL_S: Final = 0.1
HEARTBEAT_S: Final = 0.5

# A driver that has reported nothing for so long hangs: its lease is let run out, so that others see it.
SILENCE_S: Final = 30.0

# How long the last snapshot is tried to be written while Redis does not answer.
FINAL_PATIENCE_S: Final = 60.0


class Reporter:
    """Publishes the latest snapshot of a run, keeps its lease alive, and hears when somebody cancels it.

    A slow or absent Redis delays what others see of the run, never the run itself.

    Parameters
    ----------
    tenure : Tenure
        Its lease is released with the last snapshot.
    on_cancel, on_lease_lost : callable
        Called from the reporter's thread: once when somebody asks to cancel, and if another driver took the job over.
    """

    def __init__(self, tenure: Tenure, on_cancel: Callable[[], None], on_lease_lost: Callable[[], None]) -> None:
        self._tenure = tenure
        self._on_cancel = on_cancel
        self._on_lease_lost = on_lease_lost
        self._latest: Progress | None = None
        self._reported_at_s = time.monotonic()
        self._is_watched = False
        self._is_new = False
        self._is_closing = False
        self._is_cancel_known = False
        # Why the last snapshot could not be published.
        self._failing = ""
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="pipeline-reporter", daemon=True)
        self._thread.start()

    def report(self, progress: Progress) -> None:
        """Make `progress` the next snapshot; one that has not been published yet is replaced."""
        with self._changed:
            self._latest, self._is_new = progress, True
            self._reported_at_s = time.monotonic()
            self._changed.notify()

    def watch(self) -> None:
        """Take silence for a driver that hangs, from now on: while a run starts it has nothing to say."""
        with self._changed:
            self._is_watched = True
            self._reported_at_s = time.monotonic()

    def close(self, last: Progress | None) -> None:
        """Publish the last snapshot, if any, and end; a second call does nothing."""
        with self._changed:
            if self._is_closing:
                return
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        if last is not None:
            self._publish_last(last)

    def _run(self) -> None:
        while self._await_next():
            with self._changed:
                progress, self._is_new = self._latest, False
                is_silent = self._is_watched and time.monotonic() - self._reported_at_s > SILENCE_S
            if progress is None or is_silent:
                continue
            job = {"job_id": progress.job_id}
            try:
                reply = self._tenure.publish(progress)
            except LeaseLostError:
                self._on_lease_lost()
                return
            except StateError as error:
                self._note_failure(error, job)
                continue
            self._note_success(job)
            if reply.cancel_requested and not self._is_cancel_known:
                self._is_cancel_known = True
                self._on_cancel()
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, PUBLISH_INTERVAL_S)

    def _note_failure(self, error: StateError, job: Mapping[str, str]) -> None:
        # Once, not once a second; another reason is news.
        if str(error) != self._failing:
            log.warning("%s; the run goes on, its progress is published when Redis answers again", error, extra=job)
        self._failing = str(error)

    def _note_success(self, job: Mapping[str, str]) -> None:
        if self._failing:
            log.warning("Redis answers again; the progress of job %s is published", job["job_id"], extra=job)
        self._failing = ""

    def _await_next(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._is_new or self._is_closing, HEARTBEAT_S)
            return not self._is_closing

    def _publish_last(self, last: Progress) -> None:
        deadline = time.monotonic() + FINAL_PATIENCE_S
        while True:
            try:
                self._tenure.publish(last)
            except StateError as error:
                if isinstance(error, LeaseLostError) or time.monotonic() > deadline:
                    log.error("the end of job %s is in its ledger, but not in Redis: %s", last.job_id, error)
                    return
                time.sleep(1.0)
            else:
                return
