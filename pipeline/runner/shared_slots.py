"""Slots of web servers that all workers of a cluster share: Dask's semaphores on the scheduler lend them.

The fetches run on fsspec's loop, Dask's semaphores on the worker's: each call crosses from one to the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from distributed import Semaphore, Worker

from pipeline.stages.gate import HostLimit

T = TypeVar("T")

PREFIX: Final = "pipeline-fetch-"

# A question that waits at the scheduler would be answered though its worker is dead, or though the semaphore that it
# waits for has been closed: it is asked anew now and then.
BORROW_PATIENCE_S: Final = 2.0
# Before a scheduler that does not answer is asked again.
_RETRY_S: Final = 0.5


class SharedSlots:
    """The lender of a worker: one semaphore a host and limit, for the workers and the jobs of a whole cluster.

    The semaphore of a host that no worker needs is closed, so that very many hosts leave nothing on the scheduler. A
    worker that dies keeps its slots for ``distributed.scheduler.locks.lease-timeout``.

    Parameters
    ----------
    worker : distributed.Worker
    limit : HostLimit
        Of each host.
    """

    def __init__(self, worker: Worker, limit: HostLimit) -> None:
        self._worker = worker
        self._limit = limit
        # Only of hosts that this worker asks now.
        self._semaphore_by_host: dict[str, Semaphore] = {}

    async def borrow(self, host: str) -> bool:
        """Wait a few seconds for a slot, and say whether there was one."""
        return await self._on_worker(self._borrow(host))

    async def give_back(self, host: str) -> None:
        """Give a slot back to the scheduler."""
        await self._on_worker(self._give_back(host))

    async def retire(self, host: str) -> None:
        """Close the semaphore of a host, unless another worker has slots of it."""
        await self._on_worker(self._retire(host))

    async def _on_worker(self, call: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self._worker.loop.asyncio_loop))

    async def _borrow(self, host: str) -> bool:
        try:
            if host not in self._semaphore_by_host:
                self._semaphore_by_host[host] = await self._register(host)
            return bool(await self._semaphore_by_host[host].acquire(BORROW_PATIENCE_S))
        except (KeyError, RuntimeError):
            # Another worker has closed it in this moment.
            _stop_refreshing(await self._register(host))
        except OSError:
            await asyncio.sleep(_RETRY_S)
        return False

    async def _give_back(self, host: str) -> None:
        await self._semaphore_by_host[host].release()

    async def _retire(self, host: str) -> None:
        semaphore = self._semaphore_by_host.pop(host, None)
        if semaphore is None:
            return
        _stop_refreshing(semaphore)
        with contextlib.suppress(OSError):
            if await semaphore.get_value() == 0:
                await self._worker.scheduler.semaphore_close(name=semaphore.name)

    async def _register(self, host: str) -> Semaphore:
        name = f"{PREFIX}{self._limit.slots}-{self._limit.interval_s:g}-{host}"
        return await Semaphore(self._limit.slots, name, self._worker.scheduler, self._worker.loop)


def _stop_refreshing(semaphore: Semaphore) -> None:
    # It has none where leases never end.
    if refreshing := getattr(semaphore, "refresh_callback", None):
        refreshing.stop()
