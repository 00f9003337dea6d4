"""JobStore: the state of jobs in Redis."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from redis import Redis
from redis.client import PubSub

from pipeline.domain import Job, Progress
from pipeline.errors import JobConflictError, JobNotFoundError, JobRunningError, RecipeError, StateError
from pipeline.sealing import Seal, require_open
from pipeline.state.connection import redact_url, redis_errors
from pipeline.state.driver import driver_name, has_ended, new_token
from pipeline.state.lease import LEASE_S, Lease
from pipeline.state.queue import JobQueue
from pipeline.state.script import JobScript, job_key
from pipeline.state.snapshot import fields_of_new, from_fields, job_of, spec_of

FINISHED_TTL_S: Final = 7 * 24 * 3600

log = logging.getLogger(__name__)

# How often a reader that hears nothing looks whether the driver still lives.
_LOOK_S: Final = 1.0

# How long a reader of updates waits for a server that does not answer: one that is restarted reads its data first.
UPDATES_PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Shown:
    """A job's state as everybody may see it.

    Attributes
    ----------
    text : str
        A JSON object.
    owner : str
        Who submitted it to a server; empty if nobody did.
    """

    text: str
    owner: str


class JobStore:
    """The state of jobs, for any number of processes and threads.

    Made by `pipeline.state.connect`; to be closed, or used in a ``with`` statement.

    Parameters
    ----------
    redis : Redis
        Answers with text (``decode_responses``).
    url : str
        The server's; what messages show of it is redacted.
    on_close : callable
        Gives back what the store was made of.
    seal : Seal
        What seals the secrets that must be written down, here and in ledgers.
    finished_ttl_s : int
        Seconds that a finished job is kept.
    """

    def __init__(
        self,
        redis: Redis,
        url: str,
        on_close: Callable[[], None],
        seal: Seal,
        finished_ttl_s: int = FINISHED_TTL_S,
    ) -> None:
        self._redis = redis
        self.url = url
        self.seal = seal
        where = self._where = redact_url(url)
        self._on_close = on_close
        self._finished_ttl_s = finished_ttl_s
        self._script = JobScript(redis, where)
        self.queue = JobQueue(redis, where, self._script, finished_ttl_s, seal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back; the embedded server ends with its last user."""
        self._on_close()

    def create(self, job: Job) -> Progress:
        """Write a job's state as ``queued``; a job that exists stays as it is, but for how it is run.

        Raises
        ------
        JobConflictError
            If the id belongs to a job of another collection, destination, recipe, output or columns.
        """
        found = _pairs(self._script.run("create", job.id, *fields_of_new(job, self.seal)))
        before = self._job_of(found)
        require_open(before, self.seal)
        if before != job:
            differing = _conflicting_field(before, job)
            if differing:
                raise JobConflictError(f"job {job.id!r} exists with another {differing}: choose another id")
            self._script.run("respecify", job.id, spec_of(job, self.seal))
        return from_fields(found)

    def load_job(self, job_id: str) -> Job:
        """Return what a job is to do.

        Raises
        ------
        JobNotFoundError
            If there is none with that id.
        """
        return self._job_of(self._read(job_id))

    def progress(self, job_id: str) -> Progress:
        """Return a job's present state; it is ``stalled`` if nobody holds the lease of a processing job.

        Raises
        ------
        JobNotFoundError
            If there is none with that id.
        """
        return from_fields(self._read(job_id))

    def jobs(self, limit: int = 50) -> list[tuple[Job, Progress]]:
        """Return the newest jobs and their states, newest first; one that cannot be read is left out and logged."""
        return list(self._readable(map(_pairs, self._script.run("list", "", limit))))

    def shown(self, job_id: str) -> Shown:
        """Return a job's present state as its channel carries it.

        Raises
        ------
        JobNotFoundError
            If there is none with that id.
        """
        found = self._script.run("show", job_id)
        if not found:
            raise _not_found(job_id)
        return Shown(*found)

    def list_shown(self, owner: str, limit: int) -> list[str]:
        """Return the newest jobs of an owner (empty: of all) as their channels carry them, JSON, newest first."""
        return list(self._script.run("list", "", limit, owner))

    def ping(self) -> None:
        """Raise StateError unless the server answers."""
        with redis_errors(self._where):
            self._redis.ping()

    def request_cancel(self, job_id: str) -> Progress:
        """Ask a job's driver to stop; without a driver the job is ``cancelled`` at once, and a finished one stays.

        Raises
        ------
        JobNotFoundError
            If there is none with that id.
        """
        return from_fields(_found(job_id, self._script.run("cancel", job_id, self._finished_ttl_s)))

    def acquire(self, job: Job, lease_s: float = LEASE_S) -> Lease:
        """Take the right to write a job's state: it becomes ``processing``, whatever it was before.

        A driver that died on this machine is succeeded at once; one elsewhere when its lease has run out.

        Parameters
        ----------
        job : Job
            As `create` has written it.
        lease_s : float
            Seconds after which a driver that publishes nothing counts as dead.

        Raises
        ------
        JobRunningError
            If another driver holds it.
        JobNotFoundError
            If there is none with that id.
        """
        token = new_token()
        terms = (token, round(lease_s * 1000), driver_name())
        answer, holder, holder_token = self._script.run("acquire", job.id, *terms, "")
        if answer == "held" and has_ended(holder_token):
            answer, holder, _ = self._script.run("acquire", job.id, *terms, holder_token)
        if answer == "missing":
            raise _not_found(job.id)
        if answer == "held":
            raise JobRunningError(
                f"job {job.id!r} is being run by {holder}: `pipeline watch {job.id}` follows it, "
                f"`pipeline cancel {job.id}` stops it; if that process has died, try again in {lease_s:g} seconds"
            )
        return Lease(self._script, job.id, token, lease_s, self._finished_ttl_s)

    def updates(self, job_id: str, timeout_s: float | None = None) -> Iterator[Progress]:
        """Yield a job's state and then each newer one, until it is finished or the time is over.

        None is shown backwards and the last is never missed: the subscription comes first, then the snapshot, then
        messages with a newer version. A connection that dropped subscribes again, which reads the snapshot again.

        Parameters
        ----------
        job_id : str
        timeout_s : float or None
            Seconds in all; None for as long as it takes.

        Raises
        ------
        JobNotFoundError
            If there is none with that id.
        StateError
            If the server does not answer for a minute, or does not do so at first.
        """
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        version, is_finished = -1, False
        heard_at_s = float("-inf")
        with self._redis.pubsub() as channel:  # type: ignore[no-untyped-call]
            while True:
                try:
                    progress = self._hear(channel, job_id, min(_LOOK_S, max(0.0, deadline - time.monotonic())))
                except JobNotFoundError:
                    raise
                except StateError:
                    if time.monotonic() > min(deadline, heard_at_s + UPDATES_PATIENCE_S):
                        raise
                    time.sleep(_LOOK_S)
                    continue
                heard_at_s = time.monotonic()
                if progress.version > version:
                    version, is_finished = progress.version, progress.is_finished
                    yield progress
                # Not of a message that was dropped: an earlier run's last may come after the snapshot of the next.
                if is_finished or time.monotonic() >= deadline:
                    return

    def _hear(self, channel: PubSub, job_id: str, timeout_s: float) -> Progress:
        """Return what the channel says next or, if that is nothing or that it is subscribed, what the hash says."""
        with redis_errors(self._where):
            if not channel.subscribed:
                channel.subscribe(job_key(job_id))
            message = channel.get_message(timeout=timeout_s)
        if message is None or message["type"] != "message":
            return self.progress(job_id)
        return from_fields(json.loads(message["data"]))

    def _read(self, job_id: str) -> dict[str, str]:
        return _found(job_id, self._script.run("read", job_id))

    def _readable(self, found: Iterable[Mapping[str, str]]) -> Iterator[tuple[Job, Progress]]:
        """Yield the jobs that can be read: one of a later version, or spoilt, must not hide the others."""
        for fields in found:
            try:
                yield self._job_of(fields), from_fields(fields)
            except StateError as error:
                log.warning("a job is left out of the list: %s", error)

    def _job_of(self, fields: Mapping[str, str]) -> Job:
        try:
            return job_of(fields["spec"], self.seal)
        except (KeyError, RecipeError) as error:
            raise StateError(f"cannot read what job {fields.get('id')!r} is to do: {error}") from error


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _found(job_id: str, flat: list[str]) -> dict[str, str]:
    if not flat:
        raise _not_found(job_id)
    return _pairs(flat)


def _not_found(job_id: str) -> JobNotFoundError:
    return JobNotFoundError(f"no job {job_id!r}; `pipeline jobs` lists them")


def _conflicting_field(old: Job, new: Job) -> str:
    """Name the first field that makes it another job, or nothing: how images are fetched may change."""
    columns = ("url_column", "key_column", "hash_column", "carry_columns")
    names = ("collection", "destination", "recipe", "output", *columns)
    return next((name for name in names if getattr(old, name) != getattr(new, name)), "")
