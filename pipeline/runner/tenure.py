"""A driver's lease, and whether it is known to hold just now.

A process may be stopped at any moment, for an hour (a suspended laptop, a paused container), and go on as if nothing
had been. What it writes must then not meet what another driver has written, who has taken the job over meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from pipeline.domain import Progress
from pipeline.errors import LeaseLostError, StateError
from pipeline.state import LEASE_S, Lease, Reply

log = logging.getLogger(__name__)

# For so long after it was asked for, the lease is ours, and what is begun then has as long again to end.
KNOWN_FOR_S: Final = LEASE_S / 2


class Tenure:
    """A lease that remembers when it was last known to hold; for any thread.

    Parameters
    ----------
    lease : Lease
    latest : callable
        Returns the run as it is now.
    """

    def __init__(self, lease: Lease, latest: Callable[[], Progress]) -> None:
        self._lease = lease
        self._latest = latest
        self._known_at_s = float("-inf")

    @property
    def is_known(self) -> bool:
        """Whether nobody else can have the job now, nor in the next seconds; or Redis could not be asked just now."""
        return _now_s() - self._known_at_s < KNOWN_FOR_S

    def publish(self, progress: Progress) -> Reply:
        """Write a snapshot as `Lease.publish` does."""
        asked_at_s = _now_s()
        try:
            reply = self._lease.publish(progress)
        except LeaseLostError:
            self._known_at_s = float("-inf")
            raise
        except StateError:
            # Where Redis is away, nobody can take it over. If only this driver cannot reach it, others can, when the
            # lease has run out: from here the two look alike, and a run is to outlive a Redis that is away.
            self._known_at_s = _now_s()
            raise
        self._known_at_s = asked_at_s
        return reply

    def confirm(self) -> None:
        """Raise LeaseLostError if another driver has taken the job over; go on where Redis cannot be asked."""
        progress = self._latest()
        try:
            self.publish(progress)
        except LeaseLostError:
            raise
        except StateError as error:
            log.warning("%s; the run goes on", error, extra={"job_id": progress.job_id})

    def require(self) -> None:
        """Confirm it, unless it is known to hold."""
        if not self.is_known:
            self.confirm()

    def give_back(self) -> None:
        """Leave the job to the next queue worker."""
        self._lease.give_back()


def _now_s() -> float:
    # `time.monotonic` stands still while the machine is suspended, but not that of Windows. These do not either: the
    # first is Linux', the second that of macOS, where Python's own is another one.
    if not hasattr(time, "clock_gettime"):
        return time.monotonic()
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
