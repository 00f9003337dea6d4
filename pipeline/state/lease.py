"""Lease: a driver's right to write the state of one job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from pipeline.domain import Progress
from pipeline.errors import LeaseLostError
from pipeline.state.script import JobScript
from pipeline.state.snapshot import flatten, to_fields

LEASE_S: Final = 10.0

# The hash knows the one and the script gives the other.
_NOT_THE_DRIVERS: Final = frozenset({"id", "version"})


@dataclass(frozen=True, slots=True)
class Reply:
    """What the store answers to a published snapshot.

    Attributes
    ----------
    version : int
        The snapshot's version.
    cancel_requested : bool
        Whether somebody has asked for the job to be cancelled.
    """

    version: int
    cancel_requested: bool


class Lease:
    """A driver's right to write the state of one job; made by `JobStore.acquire`.

    In a ``with`` statement it is given back at the end.

    Parameters
    ----------
    script : JobScript
    job_id : str
    token : str
        Tells this lease from any other of the same job.
    lease_s : float
        Seconds for which it holds after each publish.
    finished_ttl_s : int
        Seconds that the job is kept once it is finished.
    """

    def __init__(self, script: JobScript, job_id: str, token: str, lease_s: float, finished_ttl_s: int) -> None:
        self._script = script
        self._job_id = job_id
        self._token = token
        self._lease_ms = round(lease_s * 1000)
        self._finished_ttl_s = finished_ttl_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def publish(self, progress: Progress) -> Reply:
        """Write a snapshot and tell whoever listens; renews the lease, and a final status gives it back.

        The store sets the version and, where the snapshot has none, the times.

        Raises
        ------
        LeaseLostError
            If the job was cancelled, removed or taken over while the lease had run out.
        """
        fields = {name: value for name, value in to_fields(progress).items() if name not in _NOT_THE_DRIVERS}
        terms = (self._token, self._lease_ms, self._finished_ttl_s)
        version, extra = self._script.run("publish", self._job_id, *terms, *flatten(fields))
        if version is None:
            raise LeaseLostError(
                f"cannot write the state of job {self._job_id!r}: it was cancelled, removed or taken over "
                f"(its last driver: {extra or 'unknown'})"
            )
        return Reply(int(version), bool(extra))

    def give_back(self) -> None:
        """Leave the job to the next queue worker: it is ``queued`` again, before all others."""
        self._script.run("give_back", self._job_id, self._token, self._finished_ttl_s)

    def release(self) -> None:
        """Give the job back; if it is not finished, it is ``stalled`` at once and can be resumed."""
        self._script.run("release", self._job_id, self._token)
