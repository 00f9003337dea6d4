"""The WebSocket: the snapshot first, then newer states only, for every client, whatever others do."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pipeline.domain import Progress
from pipeline.errors import LeaseLostError
from pipeline.state import connect
from tests.fixtures.service import BOB, CONFIG, follow, serving

URL = "http://127.0.0.1:9/never-fetched.jpg"


@pytest.fixture(scope="module")
def store(idle_service):
    """The state that the server reads; the tests are the drivers of its jobs."""
    with connect(idle_service.redis_url, Path("unused")) as store:
        yield store


@pytest.fixture
def job(idle_service, store):
    """A job that a queue worker has just claimed."""
    job_id = idle_service.submit(imageUrl=URL)
    lease = store.acquire(store.load_job(job_id))
    yield Claimed(job_id, lease)
    with contextlib.suppress(LeaseLostError):
        lease.publish(Progress(job_id, "cancelled"))


class Claimed:
    def __init__(self, job_id, lease):
        self.id, self.lease = job_id, lease

    def publish(self, stored, status="processing", **changes):
        self.lease.publish(replace(Progress(self.id, status, total=1000, stored=stored), **changes))


def subscribe(socket, job_id):
    socket.send(json.dumps({"type": "subscribe", "jobId": job_id}))


def next_message(socket):
    return json.loads(socket.recv(timeout=10))


def is_silent(socket, seconds=0.3):
    try:
        socket.recv(timeout=seconds)
    except TimeoutError:
        return True
    return False


def test_the_snapshot_comes_first_then_each_newer_state_and_nothing_after_the_end(idle_service, job):
    job.publish(1)
    with idle_service.socket() as socket:
        subscribe(socket, job.id)
        assert next_message(socket)["status"]["stored"] == 1
        for stored in (2, 3):
            job.publish(stored)
            assert next_message(socket)["status"]["stored"] == stored
        job.publish(4, "completed")
        assert next_message(socket)["status"]["status"] == "completed"
        assert is_silent(socket)


def test_states_are_those_of_the_http_answer(idle_service, job):
    job.publish(5, failed=2, failed_by_error={"MissingError": 2})
    with idle_service.socket() as socket:
        subscribe(socket, job.id)
        status = next_message(socket)["status"]
    assert status == idle_service.status(job.id)
    assert status["errors"] == {"MissingError": 2}


def test_who_comes_after_the_end_gets_the_end(idle_service, job):
    job.publish(9, "completed")
    with idle_service.socket() as socket:
        assert [status["status"] for status in follow(socket, job.id)] == ["completed"]


def test_one_socket_follows_many_jobs_and_forgets_what_it_is_asked_to(idle_service, store):
    with idle_service.socket() as socket:
        jobs = [idle_service.submit(imageUrl=URL) for _ in range(3)]
        for job_id in jobs:
            subscribe(socket, job_id)
        assert {next_message(socket)["jobId"] for _ in jobs} == set(jobs)
        socket.send(json.dumps({"type": "unsubscribe", "jobId": jobs[0]}))
        subscribe(socket, jobs[1])
        assert next_message(socket)["jobId"] == jobs[1]
        store.request_cancel(jobs[0])
        assert is_silent(socket)
        store.request_cancel(jobs[2])
        message = next_message(socket)
        assert (message["jobId"], message["status"]["status"]) == (jobs[2], "cancelled")


def test_a_retried_job_is_followed_anew_with_larger_versions(idle_service, store, job):
    job.publish(1, "completed")
    with idle_service.socket() as socket:
        (ended,) = follow(socket, job.id)
        assert idle_service.request("POST", f"/jobs/{job.id}/retry").status_code == 202
        subscribe(socket, job.id)
        again = next_message(socket)["status"]
        assert (again["status"], again["version"] > ended["version"]) == ("queued", True)
        store.request_cancel(job.id)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("rubbish", "not JSON"),
        ("[]", "allowed is an object"),
        (b"\xff\x00", "not JSON"),
        ('{"type": "publish", "jobId": "x"}', "allowed are 'subscribe' and 'unsubscribe'"),
        ('{"type": "subscribe"}', "a job's id"),
        ('{"type": "subscribe", "jobId": 7}', "a job's id"),
        ('{"type": "subscribe", "jobId": "../x"}', "a job's id"),
        ('{"type": "subscribe", "jobId": "x:lease"}', "a job's id"),
        ('{"type": "subscribe", "jobId": "\\ud800"}', "a job's id"),
        ('{"type": "subscribe", "jobId": "nobodys"}', "Job not found"),
        ('{"type": ["subscribe"], "jobId": "x"}', "allowed are"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_socket_stays(idle_service, job, message, words):
    with idle_service.socket() as socket:
        socket.send(message)
        assert words in next_message(socket)["error"]
        subscribe(socket, job.id)
        assert next_message(socket)["jobId"] == job.id


def test_another_clients_job_is_not_found(idle_service, job):
    with idle_service.socket() as watching, idle_service.socket(BOB) as socket:
        subscribe(watching, job.id)
        next_message(watching)
        subscribe(socket, job.id)
        assert next_message(socket) == {"error": "Job not found", "jobId": job.id}


def test_a_message_that_is_too_long_ends_only_its_own_socket(idle_service, job):
    with idle_service.socket() as rude, idle_service.socket() as socket:
        rude.send("x" * 3000)
        with pytest.raises(ConnectionClosed):
            rude.recv(timeout=10)
        subscribe(socket, job.id)
        assert next_message(socket)["jobId"] == job.id


def test_a_socket_follows_no_more_jobs_than_allowed(idle_service):
    with idle_service.socket() as socket:
        jobs = [idle_service.submit(imageUrl=URL) for _ in range(4)]
        for job_id in jobs:
            subscribe(socket, job_id)
        messages = [next_message(socket) for _ in jobs]
        assert [message["error"] for message in messages if "error" in message] == [
            "too many jobs; allowed are 3 a WebSocket"
        ]


def test_a_client_opens_no_more_sockets_than_allowed_and_others_still_can(idle_service):
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(idle_service.socket(BOB))
        with pytest.raises(InvalidStatus) as raised:
            idle_service.socket(BOB)
        assert raised.value.response.status_code == 429
        stack.enter_context(idle_service.socket())
    with idle_service.socket() as again:
        assert again.ping().wait(10)


def test_a_socket_needs_a_token(idle_service):
    with pytest.raises(InvalidStatus) as raised:
        idle_service.socket("wrong")
    assert raised.value.response.status_code == 401


def test_a_driver_that_dies_is_seen_by_who_follows_its_job(idle_service, job):
    with idle_service.socket() as socket:
        subscribe(socket, job.id)
        next_message(socket)
        Redis.from_url(idle_service.redis_url).delete(f"job:{job.id}:lease")
        assert next_message(socket)["status"]["status"] == "stalled"


def test_one_connection_to_redis_serves_all_sockets(idle_service, job):
    redis = Redis.from_url(idle_service.redis_url)
    before = len(redis.client_list(_type="pubsub"))
    with ExitStack() as stack:
        for _ in range(15):
            socket = stack.enter_context(idle_service.socket())
            subscribe(socket, job.id)
            next_message(socket)
        assert len(redis.client_list(_type="pubsub")) == before == 1


def test_cut_connections_to_redis_cost_no_state_and_no_version_goes_back(idle_service, job):
    """Followers come and the Pub/Sub connection is cut at any moment of a run."""
    redis = Redis.from_url(idle_service.redis_url)
    told = [[] for _ in range(10)]

    def watch(number):
        time.sleep(number * 0.1)
        with idle_service.socket() as socket:
            told[number] += follow(socket, job.id)

    watching = [threading.Thread(target=watch, args=[number]) for number in range(len(told))]
    for thread in watching:
        thread.start()
    for stored in range(100):
        job.publish(stored)
        if stored % 10 == 5:
            redis.client_kill_filter(_type="pubsub")
        time.sleep(0.02)
    job.publish(100, "completed")
    for thread in watching:
        thread.join(20)
    for states in told:
        assert (states[-1]["status"], states[-1]["stored"]) == ("completed", 100)
        versions = [state["version"] for state in states]
        assert versions == sorted(set(versions))


def test_a_client_that_takes_nothing_is_dropped_and_the_others_notice_nothing(tmp_path, valkey_url):
    limits = "[limits]\nsocket_deadline_s = 1\n"
    with (
        serving(tmp_path, valkey_url, "--no-work", config=CONFIG + limits) as service,
        connect(valkey_url, Path("unused")) as store,
    ):
        job_id = service.submit(imageUrl=URL)
        job = Claimed(job_id, store.acquire(store.load_job(job_id)))
        with service.socket(max_queue=1) as slow, service.socket() as quick:
            subscribe(slow, job_id)
            received = []
            reading = threading.Thread(target=lambda: received.extend(follow(quick, job_id)))
            reading.start()
            # More than the operating system keeps for a client that reads nothing.
            stored = 0
            while "pipeline_websockets_dropped_total 1.0" not in service.request("GET", "/metrics").text:
                stored += 1
                assert stored < 2000
                job.publish(stored, error="x" * 200_000)
            job.publish(stored, "completed")
            reading.join(20)
            assert received[-1]["status"] == "completed"
        assert service.request("GET", "/healthz").status_code == 200


def test_a_version_is_sent_once_though_followers_come_while_it_is_handed_out(idle_service, job):
    with ExitStack() as stack:
        sockets = [stack.enter_context(idle_service.socket()) for _ in range(12)]
        for stored, socket in enumerate(sockets):
            subscribe(socket, job.id)
            job.publish(stored)
        job.publish(len(sockets), "completed")
        for socket in sockets:
            versions, state = [], ""
            while state != "completed":
                status = next_message(socket)["status"]
                versions.append(status["version"])
                state = status["status"]
            assert versions == sorted(set(versions))
