"""What a driver knows of its lease without asking."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from redis import Redis

from pipeline.domain import Item, Job, Outcome, Progress
from pipeline.errors import LeaseLostError
from pipeline.runner import tenure as tenure_module
from pipeline.runner.buffer import OutcomeBuffer
from pipeline.runner.ledger import Ledger
from pipeline.runner.tenure import KNOWN_FOR_S, Tenure
from pipeline.state import JobStore

JOB = Job("nightly", "/in", "/out")
RUNNING = Progress(JOB.id, "processing")


class Clock:
    """A clock that the test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tenure_module, "_now_s", clock)
    return clock


@pytest.fixture
def tenure(store: JobStore) -> Tenure:
    store.create(JOB)
    return Tenure(store.acquire(JOB), lambda: RUNNING)


def rows(ledger: Ledger) -> int:
    return len(ledger.read())


def test_after_a_pause_outcomes_wait_until_the_lease_is_known_to_hold(
    tenure: Tenure, clock: Clock, tmp_path: Path
) -> None:
    ledger = Ledger(str(tmp_path), JOB.id)
    buffer = OutcomeBuffer(ledger, "f00d", tenure)
    tenure.publish(RUNNING)
    buffer.add([Outcome(Item("a", "a.jpg"), "stored")])
    clock.now_s += KNOWN_FOR_S
    buffer.flush(0.0)
    assert rows(ledger) == 0
    tenure.publish(RUNNING)
    buffer.flush(0.0)
    assert rows(ledger) == 1


@pytest.mark.parametrize("is_last", [False, True])
def test_a_driver_whose_job_was_taken_over_writes_no_outcomes(
    tenure: Tenure, clock: Clock, tmp_path: Path, store: JobStore, redis: Redis, is_last: bool
) -> None:
    ledger = Ledger(str(tmp_path), JOB.id)
    buffer = OutcomeBuffer(ledger, "f00d", tenure)
    tenure.publish(RUNNING)
    buffer.add([Outcome(Item("a", "a.jpg"), "stored")])
    clock.now_s += KNOWN_FOR_S
    redis.delete(f"job:{JOB.id}:lease")
    with store.acquire(JOB):
        if is_last:
            with pytest.raises(LeaseLostError):
                buffer.flush(0.0, is_last=True)
        buffer.flush(0.0)
        with pytest.raises(LeaseLostError):
            tenure.require()
        with pytest.raises(LeaseLostError):
            buffer.keep_suspects({"a"})
        buffer.flush(0.0)
    assert not list(tmp_path.rglob("*"))


def test_a_run_goes_on_where_redis_cannot_be_asked(tenure: Tenure, clock: Clock, store: JobStore) -> None:
    """It asks no more than now and then; of others that may reach Redis, docs/faults.md tells."""
    store.close()

    def refuse(*_: object) -> None:
        raise tenure_module.StateError("nobody answers")

    tenure._lease.publish = refuse  # type: ignore[assignment,method-assign]
    clock.now_s += KNOWN_FOR_S
    assert not tenure.is_known
    tenure.require()
    assert tenure.is_known


def test_without_linux_clock_the_one_that_counts_sleep_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease runs out while a machine sleeps: on macOS, too, whose `time.monotonic` stands still then."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    before_s = time.clock_gettime(time.CLOCK_MONOTONIC)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    assert before_s <= tenure_module._now_s() <= time.clock_gettime(time.CLOCK_MONOTONIC)
