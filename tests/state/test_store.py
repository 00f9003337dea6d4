from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from redis import Redis

from pipeline.domain import FetchPolicy, Job, Progress, Recipe
from pipeline.errors import JobConflictError, JobNotFoundError, JobRunningError, LeaseLostError, StateError
from pipeline.state import FINISHED_TTL_S, JobStore, driver

JOB = Job("1-photos", "photos/", "out/")
RUNNING = Progress(JOB.id, "processing", total=4, stored=1, done_by_stage={"fetch": 2}, seconds_by_stage={"fetch": 0.5})
DONE = replace(RUNNING, status="completed", stored=4)


def ended_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_a_new_job_is_queued_and_has_the_stages_of_its_recipe(store: JobStore) -> None:
    progress = store.create(JOB)
    assert progress.status == "queued"
    assert progress.total is None
    assert progress.done_by_stage == {"fetch": 0, "resize": 0, "enhance": 0, "store": 0}
    assert progress.created_at
    assert store.progress(JOB.id) == progress
    assert store.load_job(JOB.id) == JOB


def test_creating_the_same_job_again_changes_nothing(store: JobStore) -> None:
    assert store.create(JOB) == store.create(JOB)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("collection", "other/"),
        ("destination", "s3://b/"),
        ("recipe", Recipe(quality=1)),
        ("url_column", "link"),
        ("key_column", "id"),
        ("hash_column", "md5"),
        ("carry_columns", ("id",)),
    ],
)
def test_another_job_with_the_same_id_is_refused(store: JobStore, field: str, value: object) -> None:
    store.create(JOB)
    with pytest.raises(JobConflictError, match=f"exists with another {field}: choose another id"):
        store.create(replace(JOB, **{field: value}))  # type: ignore[arg-type]
    assert store.load_job(JOB.id) == JOB


def test_how_images_are_fetched_may_change_from_run_to_run(store: JobStore) -> None:
    store.create(JOB)
    patient = replace(JOB, fetch=FetchPolicy(timeout_s=300))
    store.create(patient)
    assert store.load_job(JOB.id) == patient


def test_a_job_that_is_not_there_is_named(store: JobStore) -> None:
    message = "no job 'nope'; `pipeline jobs` lists them"
    for ask in (store.load_job, store.progress, store.request_cancel, lambda job_id: next(store.updates(job_id))):
        with pytest.raises(JobNotFoundError, match=message):
            ask("nope")
    with pytest.raises(JobNotFoundError, match=message):
        store.acquire(Job("nope", "photos/", "out/"))


def test_a_spec_that_cannot_be_read_is_an_error_of_the_state(store: JobStore, redis: Redis) -> None:
    store.create(JOB)
    redis.hset(f"job:{JOB.id}", "spec", '{"recipe": {"sharpen": 1}}')
    with pytest.raises(StateError, match="cannot read what job '1-photos' is to do"):
        store.load_job(JOB.id)


def test_a_published_snapshot_replaces_the_one_before(store: JobStore) -> None:
    created = store.create(JOB)
    with store.acquire(JOB) as lease:
        lease.publish(replace(RUNNING, eta_seconds=3.5, failed_by_stage={"fetch": 1}))
        reply = lease.publish(RUNNING)
        seen = store.progress(JOB.id)
    expected = replace(RUNNING, created_at=created.created_at, started_at=seen.started_at, version=reply.version)
    assert seen == expected
    assert seen.started_at >= seen.created_at


def test_the_hash_and_the_channel_say_the_same(store: JobStore, redis: Redis) -> None:
    store.create(JOB)
    with store.acquire(JOB) as lease, redis.pubsub() as channel:  # type: ignore[no-untyped-call]
        channel.subscribe("job:1-photos")
        assert channel.get_message(timeout=5)["type"] == "subscribe"
        lease.publish(replace(RUNNING, error='"quoted"\n\u2603 \\', bytes_in=2**60, seconds=1e-7))
        said = json.loads(channel.get_message(timeout=5)["data"])
    written = redis.hgetall("job:1-photos")
    assert said["progress"] == 25.0
    assert said["bytesIn"] == 2**60
    assert said["seconds"] == 1e-7
    assert said["error"] == '"quoted"\n\u2603 \\'
    assert said["driver"].endswith(f":{os.getpid()}")
    assert said["collection"] == "photos/"
    assert "spec" not in said
    assert set(said) | {"spec"} == set(written)


def test_names_that_utf8_cannot_encode_do_no_harm(store: JobStore) -> None:
    job = replace(JOB, collection="caf\udce9/")
    store.create(job)
    assert store.load_job(job.id) == job


def test_versions_grow_even_if_the_server_forgot_its_last_second(store: JobStore, redis: Redis) -> None:
    store.create(JOB)
    with store.acquire(JOB) as lease:
        forgotten = redis.hget(f"job:{JOB.id}", "version")
        versions = [lease.publish(RUNNING).version for _ in range(20)]
        assert versions == sorted(set(versions))
        redis.hset(f"job:{JOB.id}", "version", forgotten)
        # The clock has to pass the versions of the same millisecond, no more than that.
        while (version := lease.publish(RUNNING).version) <= versions[-1]:
            pass
        assert version < versions[-1] + 1000


def test_the_last_snapshot_gives_the_lease_back_and_expires(store: JobStore, redis: Redis) -> None:
    store.create(JOB)
    lease = store.acquire(JOB)
    assert redis.ttl(f"job:{JOB.id}") == -1
    lease.publish(DONE)
    finished = store.progress(JOB.id)
    assert finished.status == "completed"
    assert finished.completed_at
    assert not redis.exists(f"job:{JOB.id}:lease")
    assert FINISHED_TTL_S - 5 <= redis.ttl(f"job:{JOB.id}") <= FINISHED_TTL_S
    lease.release()
    assert store.progress(JOB.id) == finished


def test_publishing_the_end_twice_is_harmless(store: JobStore) -> None:
    """A client whose connection drops before the answer sends it again."""
    store.create(JOB)
    lease = store.acquire(JOB)
    assert lease.publish(DONE) == lease.publish(DONE)


def test_only_one_driver_holds_a_job(store: JobStore) -> None:
    store.create(JOB)
    with store.acquire(JOB), pytest.raises(JobRunningError, match=rf"run by .*:{os.getpid()}: `pipeline watch 1-ph"):
        store.acquire(JOB)
    store.acquire(JOB).release()


def test_a_driver_that_died_on_this_machine_is_succeeded_at_once(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create(JOB)
    with monkeypatch.context() as dead:
        dead.setattr(os, "getpid", lambda: ended_pid())
        store.acquire(JOB)
    store.acquire(JOB).release()


def test_a_driver_in_another_container_is_not_taken_for_dead(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have the same host's name, and a process id that here nobody has."""
    store.create(JOB)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "getpid", lambda: ended_pid())
        elsewhere.setattr(driver, "pid_scope", lambda: "another container")
        store.acquire(JOB)
    with pytest.raises(JobRunningError, match="is being run by"):
        store.acquire(JOB)


def test_a_driver_that_lets_go_leaves_a_stalled_job(store: JobStore) -> None:
    store.create(JOB)
    with store.acquire(JOB) as lease:
        lease.publish(RUNNING)
    assert store.progress(JOB.id).status == "stalled"


def test_resuming_starts_afresh_and_keeps_what_identifies_the_job(store: JobStore, redis: Redis) -> None:
    created = store.create(JOB)
    lease = store.acquire(JOB)
    store.request_cancel(JOB.id)
    cancelled = lease.publish(replace(RUNNING, status="cancelled", error="interrupted"))
    assert cancelled.cancel_requested
    with store.acquire(JOB) as lease:
        resumed = store.progress(JOB.id)
        assert not lease.publish(RUNNING).cancel_requested
    assert (resumed.status, resumed.error, resumed.completed_at) == ("processing", "", "")
    assert resumed.created_at == created.created_at
    assert resumed.version > cancelled.version
    assert redis.ttl(f"job:{JOB.id}") == -1


def test_a_lease_that_ran_out_is_the_drivers_until_another_takes_the_job(store: JobStore, redis: Redis) -> None:
    store.create(JOB)
    first = store.acquire(JOB)
    redis.delete(f"job:{JOB.id}:lease")
    assert store.progress(JOB.id).status == "stalled"
    first.publish(RUNNING)
    assert store.progress(JOB.id).status == "processing"

    redis.delete(f"job:{JOB.id}:lease")
    with store.acquire(JOB) as second:
        for publish in (RUNNING, DONE):
            with pytest.raises(LeaseLostError, match="taken over"):
                first.publish(publish)
        first.release()
        second.publish(RUNNING)


def test_a_driver_whose_job_is_gone_has_lost_it(store: JobStore, redis: Redis) -> None:
    store.create(JOB)
    lease = store.acquire(JOB)
    redis.delete(f"job:{JOB.id}")
    with pytest.raises(LeaseLostError):
        lease.publish(RUNNING)
    assert not redis.exists(f"job:{JOB.id}")


def test_a_running_job_is_cancelled_by_its_driver(store: JobStore) -> None:
    store.create(JOB)
    with store.acquire(JOB) as lease:
        assert not lease.publish(RUNNING).cancel_requested
        assert store.request_cancel(JOB.id).status == "processing"
        assert lease.publish(RUNNING).cancel_requested


@pytest.mark.parametrize("status", ["queued", "stalled"])
def test_a_job_without_a_driver_is_cancelled_at_once(store: JobStore, redis: Redis, status: str) -> None:
    store.create(JOB)
    lease = store.acquire(JOB) if status == "stalled" else None
    redis.delete(f"job:{JOB.id}:lease")
    assert store.progress(JOB.id).status == status
    cancelled = store.request_cancel(JOB.id)
    assert cancelled.status == "cancelled"
    assert cancelled.completed_at
    assert redis.ttl(f"job:{JOB.id}") > 0
    if lease:
        with pytest.raises(LeaseLostError):
            lease.publish(DONE)


def test_a_finished_job_stays_as_it_is(store: JobStore) -> None:
    store.create(JOB)
    store.acquire(JOB).publish(DONE)
    finished = store.progress(JOB.id)
    assert store.request_cancel(JOB.id) == finished


def test_jobs_are_listed_newest_first_and_forgotten_when_expired(store: JobStore, redis: Redis) -> None:
    jobs = [replace(JOB, id=f"{number}-photos") for number in range(5)]
    for job in jobs:
        store.create(job)
    redis.delete("job:3-photos")
    assert [job for job, _ in store.jobs()] == [jobs[4], jobs[2], jobs[1], jobs[0]]
    assert [progress.job_id for _, progress in store.jobs(limit=2)] == ["4-photos", "2-photos"]
    assert redis.zscore("jobs", "3-photos") is None


@pytest.mark.parametrize(("field", "value"), [("spec", "{}"), ("total", "many")])
def test_a_job_that_cannot_be_read_hides_no_other(
    store: JobStore, redis: Redis, caplog: pytest.LogCaptureFixture, field: str, value: str
) -> None:
    for number in range(3):
        store.create(replace(JOB, id=f"{number}-photos"))
    redis.hset("job:1-photos", field, value)
    # A local cluster in the same session has silenced the handlers.
    caplog.set_level("WARNING")
    assert [job.id for job, _ in store.jobs()] == ["2-photos", "0-photos"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "job '1-photos'" in caplog.text


def test_the_list_shows_stalled_jobs(store: JobStore) -> None:
    store.create(JOB)
    store.acquire(JOB).release()
    assert [progress.status for _, progress in store.jobs()] == ["stalled"]
