"""The relay: one Pub/Sub connection of a server process, however many sockets and jobs.

A job that somebody follows is a Topic. Its channel is subscribed first; each confirmation, the first one and those
after a lost connection alike, reads the snapshot; then only newer versions count. A follower is offered the latest
state, never a backlog: what it could not take yet is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from pipeline.errors import JobNotFoundError, StateError
from pipeline.interfaces.server.presenting import Snapshot
from pipeline.state import Shown, channel_of, job_of_channel

log = structlog.get_logger(__name__)

# A job that says nothing for so long is looked at: its driver may have died.
_SILENCE_S: Final = 3.0

# Followers that are served before others have their turn on the loop.
_CHUNK: Final = 100

# A subscription that is always there, so that the connection is.
_KEEP: Final = "relay"

_RETRY_S: Final = 0.25


class Follower(Protocol):
    """What follows jobs: a WebSocket."""

    def offer(self, snapshot: Snapshot) -> None:
        """Take the latest state of a job; returns at once."""


@dataclass(slots=True)
class Topic:
    """A job that somebody follows."""

    job_id: str
    followers: set[Follower] = field(default_factory=set)
    latest: Snapshot | None = None
    heard_at_s: float = field(default_factory=time.monotonic)
    is_fanning_out: bool = False


class Relay:
    """Carries the state of jobs to followers.

    Parameters
    ----------
    redis : redis.asyncio.Redis
        Of its own, with text as answers.
    read : callable
        Reads a job's state, as `JobStore.shown` does, off the loop.
    root : Path or None
        The server's destination; None where followers see paths as they are.
    """

    def __init__(self, redis: Redis, read: Callable[[str], Awaitable[Shown]], root: Path | None) -> None:
        self._redis = redis
        self._read = read
        self._root = root
        self._topics: dict[str, Topic] = {}
        self._channel: PubSub | None = None
        # Strong references, or the loop may forget a task that runs.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def topics(self) -> int:
        """How many jobs are followed."""
        return len(self._topics)

    async def follow(self, job_id: str, follower: Follower) -> None:
        """Offer a job's state to a follower: as it is now, and whenever it changes."""
        topic = self._topics.get(job_id)
        # One that has ended is only waiting to be forgotten, and the job may have been run again since.
        if topic is None or (topic.latest and topic.latest.is_final):
            topic = self._topics[job_id] = Topic(job_id)
            topic.followers.add(follower)
            await self._subscribe(topic)
        else:
            topic.followers.add(follower)
            if topic.latest:
                follower.offer(topic.latest)

    def unfollow(self, job_id: str, follower: Follower) -> None:
        """Forget a follower; a job that nobody follows any more is left alone."""
        if topic := self._topics.get(job_id):
            topic.followers.discard(follower)
            if not topic.followers:
                self._drop(topic)

    def owner_of(self, job_id: str) -> str | None:
        """Return whose a followed job is; None if that is not known here."""
        topic = self._topics.get(job_id)
        return topic.latest.owner if topic and topic.latest else None

    async def run(self) -> None:
        """Listen until cancelled; a Redis that is gone is waited for, and every job is then looked at anew."""
        watching = asyncio.create_task(self._watch())
        try:
            while not _is_cancelled():
                try:
                    await self._listen()
                except (RedisError, OSError) as error:
                    log.warning("redis_lost", reason=str(error) or type(error).__name__)
                self._channel = None
                await asyncio.sleep(_RETRY_S)
        finally:
            watching.cancel()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._redis.aclose()

    async def _listen(self) -> None:
        async with self._redis.pubsub() as channel:
            await channel.subscribe(_KEEP)
            # From here on, whoever follows a job subscribes to it himself; those from before are still to be.
            self._channel = channel
            if self._topics:
                await channel.subscribe(*map(channel_of, self._topics))
            while not _is_cancelled():
                message = await channel.get_message(timeout=5.0)
                if message is None:
                    # A connection that died silently is noticed by a question.
                    await channel.ping()
                elif message["type"] in {"message", "subscribe"} and message["channel"] != _KEEP:
                    self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        topic = self._topics.get(job_of_channel(message["channel"]))
        if topic is None:
            return
        if message["type"] == "message":
            with contextlib.suppress(ValueError, KeyError):
                self._update(topic, Snapshot.of_text(message["data"], self._root))
        elif message["type"] == "subscribe":
            self._spawn(self._look(topic))

    async def _subscribe(self, topic: Topic) -> None:
        if self._channel is None:
            # The connection will subscribe to it as soon as it is there; until then, the snapshot.
            await self._look(topic)
            return
        try:
            await self._channel.subscribe(channel_of(topic.job_id))
        except (RedisError, OSError):
            log.warning("subscribe_failed", job_id=topic.job_id)

    async def _look(self, topic: Topic) -> None:
        topic.heard_at_s = time.monotonic()
        try:
            shown = await self._read(topic.job_id)
        except JobNotFoundError:
            self._drop(topic)
        except StateError:
            log.warning("snapshot_failed", job_id=topic.job_id)
        else:
            self._update(topic, Snapshot.of_text(shown.text, self._root))

    async def _watch(self) -> None:
        """Look at jobs that have been silent: whoever reads the state of one whose driver died makes it `stalled`."""
        while True:
            await asyncio.sleep(_SILENCE_S / 3)
            now = time.monotonic()
            for topic in [topic for topic in self._topics.values() if now - topic.heard_at_s > _SILENCE_S]:
                await self._look(topic)

    def _update(self, topic: Topic, snapshot: Snapshot) -> None:
        topic.heard_at_s = time.monotonic()
        if topic.latest and snapshot.version <= topic.latest.version:
            return
        topic.latest = snapshot
        if not topic.is_fanning_out:
            topic.is_fanning_out = True
            self._spawn(self._fan_out(topic))

    async def _fan_out(self, topic: Topic) -> None:
        offered: Snapshot | None = None
        while topic.latest is not None and topic.latest is not offered:
            offered, started_s = topic.latest, time.monotonic()
            for number, follower in enumerate(list(topic.followers), start=1):
                follower.offer(topic.latest)
                if number % _CHUNK == 0:
                    await asyncio.sleep(0)
            # Half of the time is for everybody else; what comes meanwhile is offered next, the latest of it.
            if not offered.is_final:
                await asyncio.sleep(time.monotonic() - started_s)
        topic.is_fanning_out = False
        if topic.latest and topic.latest.is_final:
            self._drop(topic)

    def _drop(self, topic: Topic) -> None:
        # Only if it is still this one: after its end, a job may be followed anew.
        if self._topics.get(topic.job_id) is topic:
            del self._topics[topic.job_id]
            if self._channel is not None:
                self._spawn(self._unsubscribe(topic.job_id))

    async def _unsubscribe(self, job_id: str) -> None:
        with contextlib.suppress(RedisError, OSError):
            if self._channel is not None and job_id not in self._topics:
                await self._channel.unsubscribe(channel_of(job_id))

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_cancelled() -> bool:
    """Whether the present task was asked to end: redis-py may swallow that while it connects or subscribes."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def error_text(message: str, job_id: str | None = None) -> str:
    """Return what a follower is told of what cannot be done."""
    return json.dumps({"error": message} if job_id is None else {"error": message, "jobId": job_id})
