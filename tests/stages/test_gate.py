from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import FetchPolicy
from pipeline.stages import gate as gate_module
from pipeline.stages.gate import HostGate
from pipeline.stages.lender import HostLimit, OwnSlots

T = TypeVar("T")


class CountingLender:
    """Lends so many slots of a host to whoever asks, and counts them."""

    def __init__(self, slots: int, n_gates: int = 1) -> None:
        self.slots = slots
        self.n_gates = n_gates
        self.own: Counter[str] = Counter()
        self.has_own = False
        self.lent: Counter[str] = Counter()
        self.borrowed: Counter[str] = Counter()
        self.retired: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    def take_own(self, host: str) -> bool:
        takes = self.has_own and not self.own[host]
        self.own[host] += takes
        return takes

    def put_back_own(self, host: str) -> None:
        self.own[host] -= 1
        assert self.own[host] == 0

    async def borrow(self, host: str) -> bool:
        async with self._changed:
            await self._changed.wait_for(lambda: self.lent[host] < self.slots)
            self.lent[host] += 1
            self.borrowed[host] += 1
        return True

    async def give_back(self, host: str) -> None:
        async with self._changed:
            self.lent[host] -= 1
            assert self.lent[host] >= 0
            self._changed.notify_all()

    async def retire(self, host: str) -> None:
        for _ in range(3):
            assert self.n_gates > 1 or self.lent[host] == 0
            await asyncio.sleep(0)
        self.retired[host] += 1


class Load:
    """Requests that are under way, by host."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    @asynccontextmanager
    async def request(self, gate: HostGate, host: str = "h") -> AsyncIterator[None]:
        async with gate.turn(host):
            self.now[host] += 1
            self.most[host] = max(self.most[host], self.now[host])
            try:
                yield
            finally:
                self.now[host] -= 1


def with_gate(use: Callable[[HostGate, CountingLender], Awaitable[T]], limit: HostLimit) -> T:
    async def main() -> T:
        lender = CountingLender(limit.slots)
        gate = HostGate(limit, lender)
        try:
            return await use(gate, lender)
        finally:
            await gate.aclose()
            assert lender.lent.total() == lender.own.total() == 0
            assert lender.retired.keys() == lender.borrowed.keys()

    return asyncio.run(main())


@given(st.integers(1, 1000), st.none() | st.floats(0.001, 10_000))
def test_slots_and_intervals_amount_to_the_rate_and_a_burst_to_a_second_s_worth(
    connections: int, rate: float | None
) -> None:
    limit = HostLimit.of(FetchPolicy(connections_per_host=connections, requests_per_second=rate))
    assert 1 <= limit.slots <= connections
    if rate is None:
        assert limit == HostLimit(connections, 0.0)
    else:
        assert limit.slots <= max(1, rate)
        assert limit.interval_s == pytest.approx(limit.slots / rate)


@given(seed=st.integers(), slots=st.integers(1, 4), count=st.integers(1, 60))
def test_whoever_is_cancelled_no_slot_is_lost_and_none_too_many_are_used(seed: int, slots: int, count: int) -> None:
    chance = random.Random(seed)

    async def main(gate: HostGate, lender: CountingLender) -> None:
        load = Load()

        async def ask(host: str) -> None:
            async with load.request(gate, host):
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)

        asking = []
        for _ in range(count):
            asking.append(asyncio.create_task(ask(chance.choice("ab"))))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                chance.choice(asking).cancel()
        ended = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(error) for error in ended} <= {type(None), asyncio.CancelledError}
        assert max(load.most.values(), default=0) <= slots
        assert max(lender.lent.values(), default=0) <= slots

    with_gate(main, HostLimit(slots))


def test_a_slot_is_used_again_without_asking_the_lender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "TURN_S", 3600)

    async def main(gate: HostGate, lender: CountingLender) -> None:
        for _ in range(100):
            async with gate.turn("h"):
                pass
        assert lender.borrowed["h"] == 1

    with_gate(main, HostLimit(4))


@pytest.mark.parametrize("linger_s", [0.0, 3600.0])
def test_a_slot_of_its_own_is_used_before_the_lender_is_asked(monkeypatch: pytest.MonkeyPatch, linger_s: float) -> None:
    for name, value in (("LINGER_S", linger_s), ("RETIRE_S", 0.0), ("_SWEEP_S", 0.0)):
        monkeypatch.setattr(gate_module, name, value)

    async def main(gate: HostGate, lender: CountingLender) -> None:
        lender.has_own = True
        load = Load()

        async def ask(host: str) -> None:
            async with load.request(gate, host):
                for _ in range(10):
                    await asyncio.sleep(0)

        for number in range(20):
            await ask(str(number % 2))
        assert lender.borrowed.total() == 0
        await asyncio.gather(*(ask("h") for _ in range(20)))
        assert load.most["h"] <= 4
        assert lender.borrowed["h"] >= 1
        assert max(lender.lent.values()) <= 3

    # Its own one and three of the lender's.
    with_gate(main, HostLimit(4))


def test_what_nobody_needs_is_given_back_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LINGER_S", "RETIRE_S", "_SWEEP_S"):
        monkeypatch.setattr(gate_module, name, 0.0)

    async def main(gate: HostGate, lender: CountingLender) -> None:
        for number in range(1000):
            async with gate.turn(str(number)):
                pass
        # It looks after hosts for as long as there are any.
        assert gate._sweeping
        await gate._sweeping
        assert (lender.lent.total(), lender.retired.total(), len(gate._hosts)) == (0, 1000, 0)
        # And one of them is asked again.
        async with gate.turn("7"):
            assert lender.lent["7"] == 1

    with_gate(main, HostLimit(4))


@pytest.mark.parametrize("interval_s", [0.0, 0.001])
def test_two_processes_that_both_want_all_slots_take_turns(monkeypatch: pytest.MonkeyPatch, interval_s: float) -> None:
    monkeypatch.setattr(gate_module, "TURN_S", 0.0)

    async def main() -> list[str]:
        limit = HostLimit(1, interval_s)
        lender = CountingLender(1, n_gates=2)
        load, order = Load(), []

        async def ask(name: str, gate: HostGate) -> None:
            async with load.request(gate):
                order.append(name)

        gates = {"a": HostGate(limit, lender), "b": HostGate(limit, lender)}
        await asyncio.gather(*(ask(name, gate) for name, gate in gates.items() for _ in range(10)))
        await asyncio.gather(*(gate.aclose() for gate in gates.values()))
        assert load.most["h"] == 1
        assert lender.lent.total() == 0
        return order

    order = asyncio.run(main())
    assert Counter(order) == {"a": 10, "b": 10}
    # The one is not done before the other begins.
    assert "b" in order[:10]
    assert "a" in order[:10]


def test_a_slot_begins_requests_no_more_often_than_its_interval() -> None:
    async def main(gate: HostGate, _: CountingLender) -> list[float]:
        begins = []

        async def ask() -> None:
            async with gate.turn("h"):
                begins.append(asyncio.get_running_loop().time())

        await asyncio.gather(*(ask() for _ in range(6)))
        return begins

    begins = with_gate(main, HostLimit(2, 0.05))
    assert all(later - begin >= 0.05 for begin, later in zip(begins, begins[2:], strict=False))


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_pause_holds_all_requests_to_its_host_and_no_others(is_shared: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        gate = HostGate(HostLimit(4), CountingLender(4) if is_shared else OwnSlots())
        async with gate.turn("h"):
            pass
        until = loop.time() + 0.3
        gate.pause("h", 0.3)
        # A shorter one, later, ends it no earlier.
        gate.pause("h", 0.0)
        begins = []

        async def ask() -> None:
            async with gate.turn("h"):
                begins.append(loop.time())

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        async with gate.turn("other"):
            assert not begins
        await asyncio.gather(*asking)
        assert min(begins) >= until
        await gate.aclose()

    asyncio.run(main())


def test_a_slot_is_lent_to_nobody_else_while_its_host_wants_to_be_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LINGER_S", "RETIRE_S", "_SWEEP_S"):
        monkeypatch.setattr(gate_module, name, 0.0)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        lender = CountingLender(1, n_gates=2)
        here, elsewhere = HostGate(HostLimit(1), lender), HostGate(HostLimit(1), lender)
        async with here.turn("h"):
            until = loop.time() + 0.3
            here.pause("h", 0.3)
        async with elsewhere.turn("h"):
            assert loop.time() >= until
        await here.aclose()
        await elsewhere.aclose()

    asyncio.run(main())


def test_closing_does_not_wait_for_a_pause_or_an_interval() -> None:
    """A slot that would rest for an hour goes back at once: the test would time out."""

    async def main(gate: HostGate, lender: CountingLender) -> None:
        async with gate.turn("h"):
            gate.pause("h", 3600)
        waiting = asyncio.create_task(gate.turn("h").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert lender.lent["h"] == 1

    with_gate(main, HostLimit(1, 3600.0))


def test_nobody_waits_for_a_lender_that_has_failed() -> None:
    class FailingLender(OwnSlots):
        async def borrow(self, host: str) -> bool:
            raise ValueError(f"no slots of {host}")

    async def ask(gate: HostGate) -> None:
        async with gate.turn("h"):
            pass

    async def main() -> None:
        gate = HostGate(HostLimit(1), FailingLender())
        errors = await asyncio.gather(ask(gate), ask(gate), return_exceptions=True)
        assert [str(error) for error in errors] == ["no slots of h"] * 2
        await gate.aclose()

    asyncio.run(main())


def test_a_host_that_is_being_forgotten_is_asked_of_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lender that is asked for a slot while it forgets the host might forget the slot too."""
    for name in ("LINGER_S", "RETIRE_S", "_SWEEP_S"):
        monkeypatch.setattr(gate_module, name, 0.0)

    class SlowLender(CountingLender):
        def __init__(self) -> None:
            super().__init__(1)
            self.is_retiring, self.may_go_on = asyncio.Event(), asyncio.Event()

        async def borrow(self, host: str) -> bool:
            assert not self.is_retiring.is_set() or self.may_go_on.is_set()
            return await super().borrow(host)

        async def retire(self, host: str) -> None:
            self.is_retiring.set()
            await self.may_go_on.wait()
            await super().retire(host)

    async def main() -> None:
        lender = SlowLender()
        gate = HostGate(HostLimit(1), lender)
        async with gate.turn("h"):
            pass
        await lender.is_retiring.wait()
        asking = asyncio.create_task(gate.turn("h").__aenter__())
        for _ in range(10):
            await asyncio.sleep(0)
        lender.may_go_on.set()
        await asking
        assert lender.lent["h"] == 1

    asyncio.run(main())
