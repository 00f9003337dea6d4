"""Slots of web servers that all workers of a cluster share: Dask's semaphores on the scheduler lend them.

The fetches run on fsspec's loop, Dask's semaphores on the worker's: each call crosses from one to the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from distributed import Semaphore, Worker

from pipeline.stages.lender import HostLimit

T = TypeVar("T")

PREFIX: Final = "pipeline-fetch-"

# A question that waits at the scheduler would be answered though its worker is dead, or though the semaphore that it
# waits for has been closed: it is asked anew now and then.
BORROW_PATIENCE_S: Final = 2.0
# Before a scheduler that does not answer is asked again, or one that has nothing where too many wait already.
_RETRY_S: Final = 0.25
# What is under way needs a connection each, and a scheduler of very many workers has no more than it has.
_CALLS_AT_ONCE: Final = 8
_WAITS_AT_ONCE: Final = 8


# The names of the hosts whose own slot is in use: one a worker, whatever number of jobs it has.
_OWN_TAKEN_BY_WORKER: Final[WeakKeyDictionary[Worker, set[str]]] = WeakKeyDictionary()


@dataclass(slots=True)
class _Lent:
    """The slots of a host that this worker has, and whether it asks for one more."""

    semaphore: Semaphore
    n_slots: int = 0
    is_asking: bool = False


class SharedSlots:
    """The lender of a worker: one semaphore a host and limit, for the workers and the jobs of a whole cluster.

    The semaphore of a host that no worker needs is closed, so that very many hosts leave nothing on the scheduler. A
    worker that dies keeps its slots for ``distributed.scheduler.locks.lease-timeout``.

    Parameters
    ----------
    worker : distributed.Worker
    limit : HostLimit
        Of each host.
    n_workers : int
        How many workers the cluster has now, this one included.
    """

    def __init__(self, worker: Worker, limit: HostLimit, n_workers: int) -> None:
        self._worker = worker
        self._limit = limit
        n_reserved = count_reserved(limit)
        self._n_shared = limit.slots - n_reserved
        # However many workers join later, they see that they are too many: at most so many have a slot of their own.
        self._has_own = n_workers <= n_reserved
        self._taken = _OWN_TAKEN_BY_WORKER.setdefault(worker, set())
        self._lent_by_host: dict[str, _Lent] = {}
        self._calling = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._waiting = asyncio.Semaphore(_WAITS_AT_ONCE)

    def take_own(self, host: str) -> bool:
        """Take the worker's own slot of a host, unless one of its jobs has it already."""
        name = self._name_of(host)
        if not self._has_own or name in self._taken:
            return False
        self._taken.add(name)
        return True

    def put_back_own(self, host: str) -> None:
        """Put the worker's own slot back."""
        self._taken.discard(self._name_of(host))

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
            async with self._calling:
                lent = self._lent_by_host.get(host)
                if lent is None:
                    # Registered anew whenever this worker has no slot: another one may have closed it meanwhile.
                    lent = self._lent_by_host[host] = _Lent(await self._register(host))
                lent.is_asking = True
                has_slot = bool(await lent.semaphore.acquire(timeout=0))
            if not has_slot:
                has_slot = await self._wait_for(lent.semaphore)
            lent.n_slots += has_slot
            return has_slot
        except (KeyError, RuntimeError):
            # Another worker has closed it in this moment.
            with contextlib.suppress(OSError):
                _stop_refreshing(await self._register(host))
        except OSError:
            await asyncio.sleep(_RETRY_S)
        finally:
            self._drop_unused(host, is_asking=False)
        return False

    async def _wait_for(self, semaphore: Semaphore) -> bool:
        if self._waiting.locked():
            await asyncio.sleep(_RETRY_S)
            return False
        async with self._waiting:
            return bool(await semaphore.acquire(BORROW_PATIENCE_S))

    async def _give_back(self, host: str) -> None:
        lent = self._lent_by_host[host]
        async with self._calling:
            await lent.semaphore.release()
        lent.n_slots -= 1
        self._drop_unused(host, is_asking=lent.is_asking)

    def _drop_unused(self, host: str, *, is_asking: bool) -> None:
        if lent := self._lent_by_host.get(host):
            lent.is_asking = is_asking
            if not is_asking and lent.n_slots == 0:
                _stop_refreshing(lent.semaphore)
                del self._lent_by_host[host]

    async def _retire(self, host: str) -> None:
        name, scheduler = self._name_of(host), self._worker.scheduler
        with contextlib.suppress(OSError):
            async with self._calling:
                if await scheduler.semaphore_value(name=name) == 0:
                    # To ask for the value of what another worker has closed leaves a trace; it goes with a semaphore.
                    _stop_refreshing(await self._register(host))
                    await scheduler.semaphore_close(name=name)

    def _name_of(self, host: str) -> str:
        return f"{PREFIX}{self._n_shared}-{self._limit.interval_s:g}-{host}"

    async def _register(self, host: str) -> Semaphore:
        return await Semaphore(self._n_shared, self._name_of(host), self._worker.scheduler, self._worker.loop)


def count_reserved(limit: HostLimit) -> int:
    """Return how many slots of a host are not shared, but one each for so many workers.

    With many images on hosts of their own, to ask for each would be most of the work. A small limit and one of requests
    a second are shared as a whole: what is reserved for workers that there are not is used by nobody.
    """
    return limit.slots // 4 if limit.slots >= 16 and not limit.interval_s else 0


def _stop_refreshing(semaphore: Semaphore) -> None:
    # It has none where leases never end.
    if refreshing := getattr(semaphore, "refresh_callback", None):
        refreshing.stop()
