"""Where Jupyter's handlers find jobs: the state in Redis and the relay, opened by the first who asks."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Self

from pipeline.interfaces.server.metrics import Metrics
from pipeline.interfaces.server.options import OPERATOR, Client, Limits
from pipeline.interfaces.server.presenting import Snapshot
from pipeline.interfaces.server.relay import Relay
from pipeline.settings import Settings
from pipeline.state import JobStore, connect, open_async_redis

# Whoever may use this Jupyter can run any code as its user: he sees what that user sees.
USER: Final = Client(OPERATOR, is_admin=True)

_THREADS: Final = 4


@dataclass(slots=True)
class JobDesk:
    """The jobs of Jupyter's user, with paths as they are.

    Attributes
    ----------
    relay : Relay
    limits : Limits
    metrics : Metrics
    """

    relay: Relay
    _store: JobStore
    _threads: ThreadPoolExecutor
    _relaying: asyncio.Task[None]
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connect, on the loop that will serve; the user's embedded server is started if no other is named.

        Raises
        ------
        StateError
            If no server answers.
        """
        threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="pipeline-state")
        loop = asyncio.get_running_loop()
        try:
            store = await loop.run_in_executor(threads, connect, settings.redis_url, settings.data_dir)
        except BaseException:
            threads.shutdown(wait=False)
            raise
        relay = Relay(
            open_async_redis(store.url),
            lambda job_id: loop.run_in_executor(threads, store.shown, job_id),
            root=None,
        )
        return cls(relay, store, threads, asyncio.create_task(relay.run()))

    async def show(self, job_id: str) -> Snapshot:
        """Return a job's state; raises JobNotFoundError."""
        shown = await asyncio.get_running_loop().run_in_executor(self._threads, self._store.shown, job_id)
        return Snapshot.of_text(shown.text, root=None)

    async def list_newest(self, limit: int) -> list[Snapshot]:
        """Return the states of the newest jobs."""
        loop = asyncio.get_running_loop()
        texts = await loop.run_in_executor(self._threads, self._store.list_shown, "", limit)
        return [Snapshot.of_text(text, root=None) for text in texts]

    async def require_visible(self, job_id: str, client: Client) -> None:
        """Raise JobNotFoundError unless there is such a job; one that is followed is known."""
        if self.relay.owner_of(job_id) is None:
            await self.show(job_id)

    async def aclose(self) -> None:
        """End the relay and close the connections."""
        self._relaying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._relaying
        await self.relay.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._store.close()
