"""A thousand random histories of a job: cancelled, retried, resumed, its workers and drivers dying in any order."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.domain import Failure, Item, Outcome, Progress
from pipeline.errors import WorkerLostError
from pipeline.runner.core import (
    BATCHES_PER_THREAD,
    LOSSES_IN_COMPANY,
    MAX_BATCH,
    MAX_LOSSES_IN_SANDBOX,
    SUSPECTS_IN_BATCH,
    Batch,
    RunCore,
)

STAGES = ("fetch", "resize", "store")


class JobHistory(RuleBasedStateMachine):
    """A job, its ledger, and the driver of the moment, told apart from what the core believes of them."""

    @initialize(images=st.integers(0, 120), threads=st.integers(1, 3), is_counted=st.booleans())
    def begin(self, images: int, threads: int, is_counted: bool) -> None:
        self.items = [Item(f"{number}", f"{number}.jpg") for number in range(images)]
        self.ledger: dict[str, Outcome] = {}
        self.kept_suspects: set[str] = set()
        self.threads = threads
        self.now_s = 0.0
        self.start_run(self.items, is_counted=is_counted)

    def start_run(self, items: list[Item], *, is_counted: bool) -> None:
        statuses = Counter(outcome.status for outcome in self.ledger.values())
        errors = Counter(outcome.failure.error for outcome in self.ledger.values() if outcome.failure)
        before = Progress("job", **statuses, failed_by_error=errors)
        self.core = RunCore(STAGES, self.threads, before, self.now_s, self.kept_suspects)
        if is_counted:
            self.core.total = len(self.items)
        self.left = [item for item in items if item.key not in self.ledger]
        self.unflushed: dict[str, Outcome] = {}
        self.in_flight: dict[int, Batch] = {}
        self.waiting: Counter[str] = Counter()
        self.losses_in_sandbox: Counter[str] = Counter()
        self.done_before = self.core.done
        self.stages_before: dict[str, int] = {}

    def take_in(self, batch: Batch) -> None:
        assert batch.number not in self.in_flight
        assert batch.items
        assert len(batch.items) <= (SUSPECTS_IN_BATCH if batch.is_suspect else MAX_BATCH)
        self.in_flight[batch.number] = batch

    def note(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            assert outcome.item.key not in self.ledger | self.unflushed, "counted twice"
            self.unflushed[outcome.item.key] = outcome

    def choose(self, data: st.DataObject) -> Batch:
        return self.in_flight[data.draw(st.sampled_from(sorted(self.in_flight)), "batch")]

    # What drivers do, and what happens to them.

    @precondition(lambda self: self.core.wants_items)
    @rule()
    def feed(self) -> None:
        n_items = self.core.next_batch_size
        taken, self.left = self.left[:n_items], self.left[n_items:]
        if taken:
            batch = self.core.start(taken)
            begun = {item.key for item in batch.items} if batch else set()
            if batch:
                assert not batch.is_suspect
                self.take_in(batch)
            self.waiting.update(item.key for item in taken if item.key not in begun)
        if not self.left:
            self.core.is_exhausted = True
            self.core.total = self.core.done + self.core.pending

    @rule()
    def feed_suspects(self) -> None:
        while batch := self.core.start_suspects():
            assert batch.is_suspect
            for item in batch.items:
                assert self.waiting[item.key] == 1
                del self.waiting[item.key]
                is_alone = self.losses_in_sandbox[item.key] >= LOSSES_IN_COMPANY
                assert not is_alone or len(batch.items) == 1
            self.take_in(batch)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def leave_stage(self, data: st.DataObject) -> None:
        batch = self.choose(data)
        if left := [stage for stage in STAGES[:-1] if stage not in batch.stages_done]:
            self.core.finish_stage(batch.number, left[0])

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), broken=st.sets(st.integers(0, MAX_BATCH - 1), max_size=3))
    def finish(self, data: st.DataObject, broken: set[int]) -> None:
        batch = self.choose(data)
        error = WorkerLostError("it kills") if batch.is_suspect else ValueError("no image")
        failure = Failure.from_error("resize", error, subject="a.jpg")
        outcomes = [
            Outcome(item, "failed", failure=failure) if number in broken else Outcome(item, "stored")
            for number, item in enumerate(batch.items)
        ]
        del self.in_flight[batch.number]
        self.core.finish_batch(batch.number, outcomes)
        self.note(outcomes)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """Its worker dies, for whatever reason."""
        self.lose_batch(self.choose(data))

    @precondition(lambda self: any(batch.is_suspect for batch in self.in_flight.values()))
    @rule(times=st.integers(2, MAX_LOSSES_IN_SANDBOX + 1))
    def lose_again_and_again(self, times: int) -> None:
        """An image loses every worker that it meets, or whoever is near it."""
        key = next(batch.items[0].key for batch in self.in_flight.values() if batch.is_suspect)
        for _ in range(times):
            self.feed_suspects()
            for batch in list(self.in_flight.values()):
                if batch.is_suspect and key in {item.key for item in batch.items}:
                    self.lose_batch(batch)

    def lose_batch(self, batch: Batch) -> None:
        if batch.is_suspect:
            self.losses_in_sandbox.update(item.key for item in batch.items)
        blamed = self.core.lose_batch(batch.number, "resize", WorkerLostError("it died"), 0.0)
        del self.in_flight[batch.number]
        if blamed:
            (item,) = batch.items
            assert batch.is_suspect
            assert blamed.item is item
            assert self.losses_in_sandbox[item.key] == MAX_LOSSES_IN_SANDBOX
            self.core.finish_batch(batch.number, [blamed])
            self.note([blamed])
        else:
            assert all(
                self.losses_in_sandbox[item.key] < MAX_LOSSES_IN_SANDBOX or len(batch.items) > 1 for item in batch.items
            )
            self.waiting.update(item.key for item in batch.items)
            # Counts of stages are of what is not lost.
            self.stages_before = {}
        self.kept_suspects = set(self.core.suspect_keys)

    @rule()
    def flush(self) -> None:
        self.ledger |= self.unflushed
        self.unflushed = {}

    @rule(threads=st.integers(1, 3))
    def change_workers(self, threads: int) -> None:
        self.threads = self.core.threads = threads

    @rule(is_counted=st.booleans())
    def die_and_resume(self, is_counted: bool) -> None:
        """Another driver goes on by what is in the ledger."""
        self.start_run(self.items, is_counted=is_counted)

    @rule(is_counted=st.booleans(), is_dropped=st.booleans())
    def cancel_and_resume(self, is_counted: bool, is_dropped: bool) -> None:
        self.core.is_cancelled = True
        assert not self.core.wants_items
        assert self.core.start_suspects() is None
        if is_dropped:
            self.core.drop_in_flight()
            self.in_flight = {}
        assert self.core.is_over == (not self.in_flight)
        progress = self.core.snapshot("cancelled", self.now_s)
        if not self.in_flight:
            assert set(progress.done_by_stage.values()) == {self.core.done}
        self.flush()
        self.start_run(self.items, is_counted=is_counted)

    @rule()
    def run_to_the_end_and_retry(self) -> None:
        self.run_to_the_end()
        failed = [outcome.item for outcome in self.ledger.values() if outcome.failure]
        for item in failed:
            del self.ledger[item.key]
        self.start_run(failed, is_counted=False)
        self.core.total = len(self.ledger) + len(failed)

    def run_to_the_end(self) -> None:
        """From here on nothing is lost: the run has to end, with every image in the ledger."""
        for _ in range(10_000):
            if self.core.is_over:
                break
            self.feed_suspects()
            if self.core.wants_items:
                self.feed()
            for number, batch in list(self.in_flight.items()):
                outcomes = [Outcome(item, "stored") for item in batch.items]
                del self.in_flight[number]
                self.core.finish_batch(number, outcomes)
                self.note(outcomes)
        assert self.core.is_over, "it never ends"
        self.flush()
        assert self.ledger.keys() == {item.key for item in self.items}
        progress = self.core.snapshot("completed", self.now_s)
        assert progress.total == progress.done == len(self.items)
        assert set(progress.done_by_stage.values()) <= {len(self.items)}

    def teardown(self) -> None:
        if hasattr(self, "core"):
            self.run_to_the_end()

    # What always holds.

    @invariant()
    def nothing_is_lost_or_counted_twice(self) -> None:
        if not hasattr(self, "core"):
            return
        flying = [item.key for batch in self.in_flight.values() for item in batch.items]
        assert self.core.pending == len(flying) + self.waiting.total()
        assert self.core.done == len(self.ledger) + len(self.unflushed)
        everywhere = [*flying, *self.waiting.elements(), *self.unflushed, *(item.key for item in self.left)]
        assert len(everywhere) == len(set(everywhere))
        assert {*everywhere, *self.ledger} == {item.key for item in self.items}

    @invariant()
    def counts_keep_their_bounds(self) -> None:
        if not hasattr(self, "core"):
            return
        self.now_s += 0.1
        window = BATCHES_PER_THREAD * 3
        assert len(self.in_flight) <= window
        progress = self.core.snapshot("processing", self.now_s)
        assert progress.done >= self.done_before
        assert progress.total is None or progress.done <= progress.total
        assert progress.failed == sum(progress.failed_by_error.values())
        for stage in STAGES:
            count = progress.done_by_stage[stage]
            assert progress.done <= count <= progress.done + self.core.pending
            assert count >= self.stages_before.get(stage, 0)
        self.done_before, self.stages_before = progress.done, dict(progress.done_by_stage)


TestJobHistory = pytest.mark.chaos(pytest.mark.slow(JobHistory.TestCase))
TestJobHistory.settings = settings(
    max_examples=1000, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
