"""The driver's decisions, without a cluster."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import STAGES, Failure, Item, Outcome, Progress
from pipeline.errors import WorkerLostError
from pipeline.runner.core import BATCHES_PER_THREAD, MAX_BATCH, MAX_LOSSES_IN_SANDBOX, Batch, RunCore

STAGES_WITHOUT_MODEL = ("fetch", "resize", "store")
LOST = WorkerLostError("a worker process died while it was in resize")


def items(count: int, start: int = 0) -> list[Item]:
    return [Item(f"photo-{number}", f"https://example.org/{number}.jpg") for number in range(start, start + count)]


def stored(batch: Batch) -> list[Outcome]:
    return [Outcome(item, "stored", bytes_in=10, bytes_out=1, seconds={"fetch": 0.1}) for item in batch.items]


def make_core(threads: int = 2, before: Progress | None = None) -> RunCore:
    return RunCore(STAGES_WITHOUT_MODEL, threads, before or Progress("job"), started_at_s=0.0)


def test_the_window_bounds_the_batches_in_flight() -> None:
    core = make_core(threads=2)
    started = []
    while core.wants_items:
        started.append(core.start(items(1, start=len(started))))
    assert len(started) == 2 * BATCHES_PER_THREAD
    core.finish_batch(started[0].number, stored(started[0]))
    assert core.wants_items


def test_a_run_is_over_when_the_collection_is_read_and_nothing_is_in_flight() -> None:
    core = make_core()
    batch = core.start(items(3))
    core.is_exhausted = True
    assert not core.is_over
    assert core.pending == 3
    core.finish_batch(batch.number, stored(batch))
    assert core.is_over


def test_stage_counts_reach_the_total_whether_or_not_each_task_was_heard_of() -> None:
    """A batch's last task may be heard of before its first."""
    core = make_core()
    batch = core.start(items(4))
    core.finish_stage(batch.number, "resize")
    core.finish_batch(batch.number, stored(batch))
    core.finish_stage(batch.number, "fetch")
    assert core.snapshot("processing", 1.0).done_by_stage == {"fetch": 4, "resize": 4, "store": 4}


def test_a_lost_batch_is_tried_again_in_a_sandbox_beside_the_others() -> None:
    core = make_core()
    lost, other = core.start(items(6)), core.start(items(1, start=6))
    core.finish_stage(lost.number, "fetch")
    assert core.lose_batch(lost.number, "resize", LOST, 0.0) is None
    assert core.snapshot("processing", 1.0).done_by_stage["fetch"] == 0
    assert core.pending == 7
    assert core.wants_items
    suspects = [core.start_suspects(), core.start_suspects()]
    assert [batch and batch.is_suspect for batch in (*suspects, other)] == [True, True, False]
    assert [[item.key for item in batch.items] for batch in suspects if batch] == [
        ["photo-0", "photo-1", "photo-2", "photo-3"],
        ["photo-4", "photo-5"],
    ]


def test_sandboxes_are_as_many_as_threads() -> None:
    """A worker that is killed from outside takes few of them along."""
    core = make_core(threads=1)
    core.lose_batch(core.start(items(10)).number, "fetch", LOST, 0.0)
    assert core.start_suspects() is not None
    assert core.start_suspects() is None


def test_only_an_item_that_was_alone_in_a_sandbox_is_blamed_and_only_after_the_allowed_losses() -> None:
    core = make_core()
    together = core.start(items(2))
    core.is_exhausted = True
    core.lose_batch(together.number, "resize", LOST, 0.0)
    blamed: list[Outcome] = []
    losses = 0
    while not core.is_over:
        suspects = core.start_suspects()
        assert suspects is not None
        if suspects.items[0].key == "photo-0":
            losses += 1
            if outcome := core.lose_batch(suspects.number, "resize", LOST, 0.0):
                blamed.append(outcome)
                core.finish_batch(suspects.number, [outcome])
        else:
            core.finish_batch(suspects.number, stored(suspects))
    assert losses == MAX_LOSSES_IN_SANDBOX
    (outcome,) = blamed
    assert (outcome.item.key, outcome.status) == ("photo-0", "failed")
    assert outcome.failure == Failure("resize", "WorkerLostError", f"https://example.org/0.jpg: {LOST}")
    assert core.done == 2


def test_what_has_lost_a_worker_in_an_earlier_run_loses_no_other() -> None:
    """The same image, when its job is resumed or its failures are tried again."""
    core = RunCore(STAGES_WITHOUT_MODEL, 2, Progress("job"), 0.0, suspect_keys=["photo-1"])
    first = core.start(items(3))
    assert [item.key for item in first.items] == ["photo-0", "photo-2"]
    assert core.start(items(1, start=1)) is None
    core.is_exhausted = True
    core.finish_batch(first.number, stored(first))
    assert not core.is_over
    suspects = core.start_suspects()
    assert suspects is not None
    assert suspects.is_suspect


def test_what_a_sandbox_has_stored_is_suspect_no_more_but_what_it_failed_stays_so() -> None:
    core = make_core()
    core.lose_batch(core.start(items(2)).number, "resize", LOST, 0.0)
    assert core.suspect_keys == {"photo-0", "photo-1"}
    batch = core.start_suspects()
    assert batch is not None
    culprit = Outcome(batch.items[0], "failed", failure=Failure("resize", "WorkerLostError", "it crashed"))
    core.finish_batch(batch.number, [culprit, *stored(batch)[1:]])
    assert core.suspect_keys == {"photo-0"}


def test_workers_that_die_faster_than_they_work_do_not_take_the_whole_collection_in() -> None:
    core = make_core(threads=1)
    taken = 0
    while core.wants_items and taken < 100_000:
        core.lose_batch(core.start(items(MAX_BATCH, start=taken)).number, "fetch", LOST, 0.0)
        taken += MAX_BATCH
    assert taken <= MAX_BATCH * BATCHES_PER_THREAD


def test_a_cancelled_run_starts_nothing_more_and_gives_up_what_is_in_flight() -> None:
    core = make_core()
    batch = core.start(items(2))
    core.finish_stage(batch.number, "fetch")
    core.is_cancelled = True
    assert not core.wants_items
    assert not core.is_over
    core.drop_in_flight()
    assert core.is_over
    assert core.snapshot("cancelled", 1.0).done_by_stage == {"fetch": 0, "resize": 0, "store": 0}


def test_counts_go_on_from_earlier_runs() -> None:
    before = Progress("job", stored=5, failed=1, failed_by_stage={"fetch": 1}, bytes_in=100)
    core = make_core(before=before)
    batch = core.start(items(1))
    core.finish_batch(
        batch.number, [Outcome(batch.items[0], "failed", failure=Failure("resize", "TruncatedError", "it ends"))]
    )
    snapshot = core.snapshot("completed", 2.0)
    assert (snapshot.stored, snapshot.failed, snapshot.bytes_in) == (5, 2, 100)
    assert snapshot.failed_by_stage == {"fetch": 1, "resize": 1}
    assert snapshot.done_by_stage == {"fetch": 7, "resize": 7, "store": 7}
    assert snapshot.images_per_second == 0.5


def test_speed_is_of_the_last_seconds_while_it_runs_and_the_mean_at_the_end() -> None:
    core = make_core(threads=1000)
    core.total = 400
    for second in range(1, 101):
        batch = core.start(items(1 if second <= 50 else 4, start=10 * second))
        core.finish_batch(batch.number, stored(batch))
        running = core.snapshot("processing", float(second))
    assert running.images_per_second == 4.0
    assert running.eta_seconds == (400 - 250) / 4.0
    ended = core.snapshot("completed", 100.0)
    assert ended.images_per_second == 2.5
    assert ended.eta_seconds is None


@given(total=st.integers(0, 5000), threads=st.integers(1, 64))
def test_batches_begin_and_end_small(total: int, threads: int) -> None:
    """They grow from one image, so that the first results show soon, and shrink, so that all threads end together."""
    core = make_core(threads)
    core.total = total
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(core.next_batch_size)
        core.start(items(sizes[-1], start=sum(sizes)))
    assert all(1 <= size <= MAX_BATCH for size in sizes)
    assert sizes[:threads] == [1] * len(sizes[:threads])
    assert sizes[-threads:] == [1] * len(sizes[-threads:])
    largest = sizes.index(max(sizes, default=1)) if sizes else 0
    assert sizes[:largest] == sorted(sizes[:largest])
    assert sizes[largest:] == sorted(sizes[largest:], reverse=True)


def test_batches_hold_half_a_second_of_work() -> None:
    """Slow recipes have small batches: progress shows, and a cancel is soon obeyed."""
    core = make_core(threads=1)
    for number in range(20):
        batch = core.start(items(1, start=number))
        seconds = {"fetch": 7.0, "resize": 0.05, "store": 0.05}
        core.finish_batch(batch.number, [Outcome(batch.items[0], "stored", seconds=seconds)])
    assert core.next_batch_size == 5


def test_batches_hold_a_bounded_number_of_bytes() -> None:
    """What was fetched waits in a worker's memory."""
    core = make_core(threads=1)
    for number in range(20):
        batch = core.start(items(1, start=number))
        core.finish_batch(batch.number, [Outcome(batch.items[0], "stored", bytes_in=40 * 2**20)])
    assert core.next_batch_size == 3


def test_a_collection_that_is_still_being_counted_has_large_batches() -> None:
    core = make_core(threads=1)
    for number in range(20):
        core.start(items(1, start=number))
    assert core.next_batch_size == MAX_BATCH


@given(
    count=st.integers(0, 60),
    size=st.integers(1, 7),
    threads=st.integers(1, 3),
    killers=st.sets(st.integers(0, 59), max_size=3),
    random_=st.randoms(use_true_random=False),
)
def test_every_item_gets_exactly_one_outcome_whatever_dies(
    count: int, size: int, threads: int, killers: set[int], random_: random.Random
) -> None:
    """Any order of ends, any batches lost: nothing is lost, nothing is doubled, and only killers are blamed."""
    core = RunCore(STAGES, threads, Progress("job"), 0.0)
    source = items(count)
    batches = [source[start : start + size] for start in range(0, count, size)]
    in_flight: list[Batch] = []
    outcomes: list[Outcome] = []
    killer_keys = {f"photo-{number}" for number in killers}
    while True:
        while suspects := core.start_suspects():
            in_flight.append(suspects)
        while core.wants_items:
            if batches:
                in_flight.append(core.start(batches.pop(0)))
            else:
                core.is_exhausted = True
        if core.is_over:
            break
        assert len(in_flight) <= threads * BATCHES_PER_THREAD
        batch = in_flight.pop(random_.randrange(len(in_flight)))
        if killer_keys & {item.key for item in batch.items}:
            if blamed := core.lose_batch(batch.number, "resize", LOST, 0.0):
                core.finish_batch(batch.number, [blamed])
                outcomes.append(blamed)
        else:
            core.finish_batch(batch.number, stored(batch))
            outcomes += stored(batch)
    assert sorted(outcome.item.key for outcome in outcomes) == sorted(item.key for item in source)
    failed = {outcome.item.key for outcome in outcomes if outcome.failure}
    assert failed == killer_keys & {item.key for item in source}
    assert core.done == count
    assert set(core.snapshot("completed", 1.0).done_by_stage.values()) <= {count}
