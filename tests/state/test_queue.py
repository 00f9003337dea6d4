"""Jobs that wait for a queue worker: in order, claimed once, never lost."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from redis import Redis

from pipeline.domain import Job, Progress
from pipeline.errors import JobConflictError, JobNotFoundError, LeaseLostError, QueueFullError
from pipeline.state import JobStore, connect


def job(name: str) -> Job:
    return Job(name, "photos", "out")


def submit(store: JobStore, *names: str, owner: str = "") -> None:
    for name in names:
        store.queue.submit(job(name), owner, 100)


def claim(store: JobStore, lease_s: float = 10.0):
    found = store.queue.claim(lease_s)
    assert found is not None
    return found


def end(store: JobStore, claimed, status="completed", **changes) -> None:
    claimed.lease.publish(replace(store.progress(claimed.job_id), status=status, **changes))


def expire(redis: Redis, name: str) -> None:
    """Let a job's lease run out, as after ten seconds without a word from its driver."""
    redis.delete(f"job:{name}:lease")


def test_jobs_are_claimed_in_the_order_in_which_they_came(store):
    submit(store, "b", "a", "c")
    assert [claim(store).job_id for _ in range(3)] == ["b", "a", "c"]
    assert store.queue.claim() is None


def test_a_claimed_job_is_processing_and_its_lease_is_the_claimants(store):
    submit(store, "1")
    claimed = claim(store)
    assert store.progress("1").status == "processing"
    with pytest.raises(JobConflictError):
        store.acquire(job("1"))
    claimed.lease.publish(Progress("1", "processing", total=4, stored=1))
    assert store.progress("1").stored == 1


def test_a_job_is_claimed_by_one_of_many(store, store_url):
    submit(store, *map(str, range(40)))

    def take(_: int) -> list[str]:
        with connect(store_url, None) as own:
            taken = []
            while found := own.queue.claim():
                taken.append(found.job_id)
            return taken

    with ThreadPoolExecutor(4) as threads:
        taken = [name for names in threads.map(take, range(4)) for name in names]
    assert sorted(taken, key=int) == [str(number) for number in range(40)]


def test_a_job_whose_worker_died_is_claimed_again_before_those_that_wait(store, redis):
    submit(store, "first", "second")
    dead = claim(store)
    expire(redis, "first")
    again = claim(store)
    assert (again.job_id, again.redo) == ("first", "")
    with pytest.raises(LeaseLostError):
        dead.lease.publish(Progress("first", "processing"))
    assert claim(store).job_id == "second"


def test_a_job_whose_worker_dies_again_and_again_is_given_up(store, redis):
    submit(store, "deadly", "next")
    names = []
    while (found := store.queue.claim()) and found.job_id == "deadly":
        names.append(found.job_id)
        expire(redis, "deadly")
    progress = store.progress("deadly")
    assert (len(names), progress.status) == (5, "failed")
    assert "died 5 times" in progress.error
    assert found.job_id == "next"


def test_a_job_that_is_given_back_goes_on_before_all_others_and_is_not_lost(store):
    submit(store, "1", "2")
    claimed = claim(store)
    claimed.lease.give_back()
    assert store.progress("1").status == "queued"
    assert claim(store).job_id == "1"


def test_giving_back_what_another_driver_has_changes_nothing(store, redis):
    submit(store, "1")
    old = claim(store)
    expire(redis, "1")
    new = claim(store)
    old.lease.give_back()
    assert store.progress("1").status == "processing"
    end(store, new)
    old.lease.give_back()
    assert store.progress("1").status == "completed"


def test_a_cancelled_job_leaves_the_queue(store):
    submit(store, "1", "2")
    assert store.request_cancel("1").status == "cancelled"
    assert store.queue.counts().waiting == 1
    assert claim(store).job_id == "2"


def test_a_full_queue_takes_no_more_and_an_id_is_taken_once(store):
    submit(store, "1", "2")
    with pytest.raises(QueueFullError, match="2 jobs wait"):
        store.queue.submit(job("3"), "", 2)
    with pytest.raises(JobNotFoundError):
        store.progress("3")
    with pytest.raises(JobConflictError, match="'1' exists"):
        store.queue.submit(job("1"), "", 100)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_job_that_has_ended_can_wait_again_and_says_how_it_ended(store, status):
    submit(store, "1")
    end(store, claim(store), status, error="why" if status == "failed" else "")
    version = store.progress("1").version
    store.queue.resubmit("1", 100)
    progress = store.progress("1")
    assert (progress.status, progress.error, progress.completed_at) == ("queued", "", "")
    assert progress.version > version
    again = claim(store)
    assert again.redo == status
    end(store, again)
    assert store.progress("1").status == "completed"


def test_a_redo_survives_the_death_of_its_worker(store, redis):
    submit(store, "1")
    end(store, claim(store))
    store.queue.resubmit("1", 100)
    claim(store)
    expire(redis, "1")
    assert claim(store).redo == "completed"


def test_what_waits_or_runs_is_not_submitted_again(store):
    submit(store, "1")
    with pytest.raises(JobConflictError):
        store.queue.resubmit("1", 100)
    claim(store)
    with pytest.raises(JobConflictError):
        store.queue.resubmit("1", 100)
    with pytest.raises(JobNotFoundError):
        store.queue.resubmit("2", 100)


def test_each_owner_lists_his_own_newest_first_and_nobody_sees_what_is_private(store):
    submit(store, "1", owner="alice")
    submit(store, "2", owner="bob")
    submit(store, "3", owner="alice")
    listed = [json.loads(text) for text in store.list_shown("alice", 10)]
    assert [fields["id"] for fields in listed] == ["3", "1"]
    assert len(store.list_shown("", 10)) == 3
    assert not {"spec", "leaseToken", "redo", "losses"} & set(listed[0])
    assert store.shown("2").owner == "bob"


def test_what_is_shown_is_what_the_channel_carries(store, redis):
    with redis.pubsub() as channel:
        channel.subscribe("job:1")
        channel.get_message(timeout=5)
        submit(store, "1")
        assert json.loads(channel.get_message(timeout=5)["data"]) == json.loads(store.shown("1").text)


def test_sums_grow_by_what_is_new_and_a_resumed_job_counts_nothing_twice(store, redis):
    submit(store, "1")
    claimed = claim(store)
    half = Progress("1", "processing", total=4, stored=2, failed=1, seconds_by_stage={"fetch": 1.5})
    half = replace(half, failed_by_error={"MissingError": 1})
    claimed.lease.publish(half)
    expire(redis, "1")
    claimed = claim(store)
    claimed.lease.publish(half)
    claimed.lease.publish(replace(half, status="completed", stored=3))
    totals = store.queue.counts().totals
    assert (totals["stored"], totals["failed"], totals["secondsFetch"]) == (3, 1, 1.5)
    assert (totals["errors:MissingError"], totals["jobs:completed"]) == (1, 1)


def test_a_listener_hears_of_a_job_at_once(store):
    news = store.queue.listen()
    store.queue.wait(news, 5)
    submit(store, "1")
    message = news.get_message(timeout=5)
    assert (message["type"], message["data"]) == ("message", "1")
    news.close()


def test_workers_that_live_are_known_and_those_that_ended_are_not(store):
    store.queue.announce_worker("a", {"jobs": 1}, 10)
    store.queue.announce_worker("b", {"jobs": 0}, 10)
    store.queue.withdraw_worker("b")
    assert store.queue.workers() == {"a": {"jobs": 1}}


def test_a_cancel_is_kept_though_the_worker_dies_before_it_hears_of_it(store, redis):
    submit(store, "1")
    claim(store)
    store.request_cancel("1")
    expire(redis, "1")
    assert store.queue.claim() is None
    assert store.progress("1").status == "cancelled"


def test_a_cancel_is_kept_though_the_worker_ends_before_it_hears_of_it(store):
    submit(store, "1")
    claimed = claim(store)
    store.request_cancel("1")
    claimed.lease.give_back()
    assert store.progress("1").status == "cancelled"
    assert store.queue.claim() is None


def test_a_job_that_is_submitted_again_is_lost_to_its_last_driver(store, redis):
    submit(store, "1")
    old = claim(store)
    expire(redis, "1")
    assert store.progress("1").status == "stalled"
    store.queue.resubmit("1", 100)
    with pytest.raises(LeaseLostError):
        old.lease.publish(Progress("1", "processing"))
    assert claim(store).job_id == "1"


def test_an_id_that_expired_and_is_somebody_elses_now_is_not_in_the_old_list(store, redis):
    submit(store, "1", owner="alice")
    redis.delete("job:1")
    submit(store, "1", owner="bob")
    assert store.list_shown("alice", 10) == []
    assert len(store.list_shown("bob", 10)) == 1


def test_an_index_forgets_what_is_kept_no_more(store, redis):
    for number in range(20):
        submit(store, str(number), owner="alice")
        redis.delete(f"job:{number}")
    assert redis.zcard("jobs") <= 4
    assert redis.zcard("jobs:alice") <= 4


def test_a_worker_that_says_nothing_more_is_forgotten(store, redis):
    store.queue.announce_worker("a", {}, -1)
    assert store.queue.workers() == {}
    assert redis.hlen("workers") == 0
