"""JobQueue: jobs that wait for a queue worker, in the order in which they came."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis
from redis.client import PubSub

from pipeline.domain import Job
from pipeline.errors import JobConflictError, JobNotFoundError, QueueFullError
from pipeline.sealing import Seal
from pipeline.state.connection import redis_errors
from pipeline.state.driver import driver_name, new_token
from pipeline.state.lease import LEASE_S, Lease
from pipeline.state.script import QUEUE_CHANNEL, JobScript
from pipeline.state.snapshot import fields_of_new

_WORKERS: Final = "workers"


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that a queue worker has taken.

    Attributes
    ----------
    job_id : str
    lease : Lease
    redo : str
        The status at which the job had ended before it was queued again; empty if it is new, or goes on.
    """

    job_id: str
    lease: Lease
    redo: str


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many jobs wait and run, and the sums over all jobs since the state began.

    Attributes
    ----------
    waiting, running : int
    totals : mapping of str to float
        By name: ``stored``, ``failed``, ``secondsFetch``, ``errors:MissingError``, ``jobs:completed`` and so on.
    """

    waiting: int
    running: int
    totals: Mapping[str, float]


class JobQueue:
    """The queue of jobs, for any number of servers and queue workers; made by `JobStore.queue`."""

    def __init__(self, redis: Redis, where: str, script: JobScript, finished_ttl_s: int, seal: Seal) -> None:
        self._redis = redis
        self._where = where
        self._script = script
        self._finished_ttl_s = finished_ttl_s
        self._seal = seal

    def submit(self, job: Job, owner: str, max_waiting: int) -> None:
        """Let a new job wait for a queue worker.

        Parameters
        ----------
        job : Job
        owner : str
            Whoever may see it; empty for nobody in particular.
        max_waiting : int
            How many jobs may wait.

        Raises
        ------
        JobConflictError
            If there is a job of that id.
        QueueFullError
            If that many wait already.
        """
        answer = self._script.run("enqueue", job.id, max_waiting, owner, *fields_of_new(job, self._seal))
        if answer == "exists":
            raise JobConflictError(f"job {job.id!r} exists already: choose another id, or retry that one")
        _refuse_full(answer, max_waiting)

    def resubmit(self, job_id: str, max_waiting: int) -> None:
        """Let a job that has ended, or whose driver is gone, wait to be run again: what failed, and what is left.

        Raises
        ------
        JobConflictError
            If it waits or runs.
        JobNotFoundError
            If there is none with that id.
        QueueFullError
            If `max_waiting` jobs wait already.
        """
        answer = self._script.run("requeue", job_id, max_waiting)
        if answer == "missing":
            raise JobNotFoundError(f"no job {job_id!r}")
        if answer == "busy":
            raise JobConflictError(f"job {job_id!r} waits or runs: cancel it first, or wait for its end")
        _refuse_full(answer, max_waiting)

    def claim(self, lease_s: float = LEASE_S) -> Claim | None:
        """Take the next job: one whose worker died, or else the one that has waited longest; None if there is none."""
        token = new_token()
        answer = self._script.run("claim", "", token, round(lease_s * 1000), driver_name(), self._finished_ttl_s)
        if not answer:
            return None
        job_id, redo = answer
        return Claim(job_id, Lease(self._script, job_id, token, lease_s, self._finished_ttl_s), redo)

    def counts(self) -> QueueCounts:
        """Count the jobs that wait and run, and read the sums."""
        waiting, running, flat = self._script.run("count", "")
        totals = dict(zip(flat[::2], map(float, flat[1::2]), strict=True))
        return QueueCounts(waiting, running, totals)

    def listen(self) -> PubSub:
        """Subscribe to the news that a job has come to wait; `wait` reads it."""
        channel: PubSub = self._redis.pubsub()  # type: ignore[no-untyped-call]
        with redis_errors(self._where):
            channel.subscribe(QUEUE_CHANNEL)
        return channel

    def wait(self, channel: PubSub, timeout_s: float) -> None:
        """Return when a job has come, or after the time; at once for every message that is still unread."""
        with redis_errors(self._where):
            channel.get_message(timeout=timeout_s)

    def announce_worker(self, name: str, about: Mapping[str, Any], ttl_s: float) -> None:
        """Say that a queue worker lives, and how it stands, for as long as `ttl_s`."""
        with redis_errors(self._where):
            self._redis.hset(_WORKERS, name, json.dumps({"until": self._now_s() + ttl_s, "about": about}))

    def _now_s(self) -> float:
        # Of one clock for all: those of machines differ, and jump.
        seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6

    def withdraw_worker(self, name: str) -> None:
        """Say that a queue worker ends."""
        with redis_errors(self._where):
            self._redis.hdel(_WORKERS, name)

    def workers(self) -> dict[str, Any]:
        """Return what the living queue workers say of themselves, by name."""
        with redis_errors(self._where):
            told = {str(name): json.loads(text) for name, text in self._redis.hgetall(_WORKERS).items()}
            now = self._now_s()
            gone = [name for name, word in told.items() if word["until"] < now]
            if gone:
                self._redis.hdel(_WORKERS, *gone)
        return {name: word["about"] for name, word in told.items() if name not in gone}


def _refuse_full(answer: str, max_waiting: int) -> None:
    if answer == "full":
        raise QueueFullError(f"{max_waiting} jobs wait already: try again later")
