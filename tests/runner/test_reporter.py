"""The lease of a run, as the reporter keeps it."""

from __future__ import annotations

import threading

import pytest

from pipeline.domain import Job, Progress
from pipeline.errors import JobConflictError
from pipeline.runner import reporter as reporter_module
from pipeline.runner.reporter import Reporter
from pipeline.runner.tenure import Tenure
from pipeline.state import JobStore, Lease

JOB = Job("nightly", "/in", "/out")
LEASE_S = 1.0


@pytest.fixture
def lease(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> Lease:
    monkeypatch.setattr(reporter_module, "SILENCE_S", 0.1)
    store.create(JOB)
    return store.acquire(JOB, LEASE_S)


def test_a_run_that_is_still_starting_keeps_its_lease_though_it_has_nothing_to_say(
    store: JobStore, lease: Lease
) -> None:
    """Workers of a queue may take minutes: nobody else is to run the job meanwhile."""
    reporter = Reporter(Tenure(lease, lambda: Progress(JOB.id)), lambda: None, lambda: None)
    reporter.report(Progress(JOB.id, "processing"))
    is_over = threading.Event()
    is_over.wait(3 * LEASE_S)
    with pytest.raises(JobConflictError):
        store.acquire(JOB)
    reporter.close(None)


def test_a_run_that_is_watched_and_says_nothing_loses_its_lease(store: JobStore, lease: Lease) -> None:
    reporter = Reporter(Tenure(lease, lambda: Progress(JOB.id)), lambda: None, lambda: None)
    reporter.report(Progress(JOB.id, "processing"))
    reporter.watch()
    for progress in store.updates(JOB.id, 20):
        if progress.status == "stalled":
            break
    assert store.progress(JOB.id).status == "stalled"
    reporter.close(None)
