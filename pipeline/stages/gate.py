"""Turns at web servers: so many requests at once to one host, so many a second, none while it asks to be left alone.

A request needs a slot of its host, of which there are as many as there may be requests at once. Slots are borrowed of a
lender, and where processes share a host, that is who counts for all of them. A process keeps a slot from one request to
the next, since asking the lender takes time, and gives it back when it has nothing more to ask; or when it has had it
for a second, needs more of them than it can have, and others may wait. A slot of its own it has without asking.

A limit of requests a second asks for no more counting: whoever has a slot begins a request with it every so many
seconds, and gives it back only when the next might begin.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from pipeline.stages.lender import HostLimit, Lender, OwnSlots

# How long a slot is kept that nobody here needs: the next request often comes soon.
LINGER_S: Final = 0.1
TURN_S: Final = 1.0
# How long the lender remembers a host that nobody here needs.
RETIRE_S: Final = 5.0
_SWEEP_S: Final = 0.2


class HostGate:
    """Lets requests pass to their hosts, each in its turn.

    It belongs to one event loop, and is closed there with `aclose`, for good, when nobody waits any more.

    Parameters
    ----------
    limit : HostLimit
        Of each host.
    lender : Lender, optional
        Who counts, where other processes ask the same hosts.
    """

    def __init__(self, limit: HostLimit, lender: Lender | None = None) -> None:
        self._limit = limit
        self._lender = lender or OwnSlots()
        self._hosts: dict[str, _Host] = {}
        self._closing = asyncio.Event()
        self._sweeping: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Wait for a turn at a host, which is over at the end of the block."""
        entry = self._entry(host)
        slot = await entry.take()
        try:
            yield
        finally:
            entry.put_back(slot)

    def pause(self, host: str, seconds: float) -> None:
        """Begin no request to a host for so many seconds."""
        self._entry(host).pause(seconds)

    async def aclose(self) -> None:
        """Give back all slots."""
        self._closing.set()
        if self._sweeping:
            self._sweeping.cancel()
        await asyncio.gather(*(entry.aclose() for entry in self._hosts.values()))
        self._hosts.clear()

    def _entry(self, host: str) -> _Host:
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep())
        if host not in self._hosts:
            self._hosts[host] = _Host(host, self._limit, self._lender, self._closing)
        return self._hosts[host]

    async def _sweep(self) -> None:
        """Look after slots and hosts that nobody needs: there may be very many hosts."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._hosts = {name: entry for name, entry in self._hosts.items() if not entry.sweep()}
            if not self._hosts:
                return


@dataclass(slots=True, eq=False)
class _Slot:
    """The right to one request at a time, with the loop's times of its begin, its last use, and its next."""

    since: float
    idle_since: float
    ready_at: float = 0.0
    is_own: bool = False


class _Host:
    """One host: its slots that are here, and who waits for one."""

    def __init__(self, name: str, limit: HostLimit, lender: Lender, closing: asyncio.Event) -> None:
        self._name = name
        self._limit = limit
        self._lender = lender
        self._closing = closing
        self._waiting: deque[asyncio.Future[_Slot]] = deque()
        self._idle: deque[_Slot] = deque()
        self._n_in_use = 0
        self._n_returning = 0
        self._needed_at = _now()
        self._paused_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._borrowing: asyncio.Task[None] | None = None
        self._retiring = asyncio.Lock()
        self._is_known_to_lender = False

    async def take(self) -> _Slot:
        """Wait for a slot whose time has come."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[_Slot] = loop.create_future()
        self._waiting.append(turn)
        self._serve()
        try:
            slot = await turn
            await self._rest(slot)
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and not turn.exception():
                self.put_back(turn.result())
            raise
        slot.ready_at = loop.time() + self._limit.interval_s
        return slot

    def put_back(self, slot: _Slot) -> None:
        """Take a slot back after its request."""
        self._n_in_use -= 1
        slot.idle_since = _now()
        wants_more = self._is_wanted() and (self._is_borrowing() or self._n_held() + 1 >= self._limit.slots)
        if wants_more and not slot.is_own and slot.idle_since - slot.since > TURN_S:
            self._give_back(slot)
        else:
            self._idle.append(slot)
        self._serve()

    def pause(self, seconds: float) -> None:
        """Use no slot for so many seconds, and lend it to nobody."""
        self._paused_until = max(self._paused_until, _now() + seconds)

    def sweep(self) -> bool:
        """Give back what was not needed for a while; return whether the host may be forgotten."""
        now = _now()
        while self._idle and now - self._idle[0].idle_since >= LINGER_S:
            self._give_back(self._idle.popleft())
        if self._is_needed() or self._tasks or now < self._paused_until:
            self._needed_at = now
        elif not self._is_known_to_lender:
            return True
        elif now - self._needed_at >= RETIRE_S:
            self._spawn(self._retire())
        return False

    async def aclose(self) -> None:
        """Give all slots back."""
        while self._idle or self._tasks:
            while self._idle:
                self._give_back(self._idle.popleft())
            if self._tasks:
                await asyncio.wait(self._tasks)
        await self._retire()

    def _is_wanted(self) -> bool:
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        return bool(self._waiting)

    def _is_needed(self) -> bool:
        return self._is_wanted() or self._n_held() > 0

    def _is_borrowing(self) -> bool:
        return self._borrowing is not None and not self._borrowing.done()

    def _n_held(self) -> int:
        return len(self._idle) + self._n_in_use + self._n_returning

    def _serve(self) -> None:
        """Hand idle slots to those who wait, and get more if they are not enough."""
        while self._is_wanted():
            if not self._idle and self._lender.take_own(self._name):
                self._idle.append(_Slot(_now(), _now(), is_own=True))
            if not self._idle:
                break
            self._n_in_use += 1
            self._waiting.popleft().set_result(self._idle.popleft())
        if self._wants_to_borrow() and not self._is_borrowing():
            self._borrowing = self._spawn(self._borrow())

    def _wants_to_borrow(self) -> bool:
        return self._is_wanted() and self._n_held() < self._limit.slots and not self._closing.is_set()

    async def _borrow(self) -> None:
        """Borrow one slot after the other: many questions that wait at the lender would be a burden to it."""
        async with self._retiring:
            while self._wants_to_borrow():
                self._is_known_to_lender = True
                if await self._lender.borrow(self._name):
                    self._idle.append(_Slot(_now(), _now()))
                    self._serve()

    def _give_back(self, slot: _Slot) -> None:
        if slot.is_own:
            self._lender.put_back_own(self._name)
            return
        self._n_returning += 1
        self._spawn(self._return(slot))

    async def _return(self, slot: _Slot) -> None:
        await self._rest(slot)
        try:
            await self._lender.give_back(self._name)
        finally:
            self._n_returning -= 1
            self._serve()

    async def _retire(self) -> None:
        async with self._retiring:
            if self._is_known_to_lender and not self._is_needed():
                await self._lender.retire(self._name)
                self._is_known_to_lender = False

    async def _rest(self, slot: _Slot) -> None:
        """Wait until a request may begin with a slot, or the gate is closed."""
        while (ready_at := max(slot.ready_at, self._paused_until)) > _now() and not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(ready_at):
                    await self._closing.wait()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._conclude)
        return task

    def _conclude(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # Nobody is to wait for what will not come.
            while self._is_wanted():
                self._waiting.popleft().set_exception(error)


def _now() -> float:
    return asyncio.get_running_loop().time()
