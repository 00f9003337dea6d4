"""Web servers that the workers of a cluster ask together."""

from __future__ import annotations

import contextlib
import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import Client, Future
from hypothesis import given
from hypothesis import strategies as st

import pipeline
from pipeline.domain import FetchPolicy, Item, Job, Recipe
from pipeline.launch import new_job_id
from pipeline.runner.images import Carried
from pipeline.runner.shared_slots import PREFIX, count_reserved
from pipeline.runner.tasks import EquipWorker, fetch_batch
from pipeline.stages.lender import HostLimit
from tests.fixtures.cluster import DaskCommands
from tests.fixtures.photographs import make_photograph
from tests.fixtures.web import Reply, Web

LOOPBACK = FetchPolicy(timeout_s=30, retries=0, allow_private=True)


class Equipped:
    """Workers that are equipped for a job of a policy."""

    def __init__(self, client: Client, policy: FetchPolicy) -> None:
        self.client = client
        self.job = Job(new_job_id(), "photos/", "out/", fetch=policy)
        client.register_plugin(EquipWorker(self.job))

    def start(self, worker: str, urls: Sequence[str]) -> Future:
        """Have a worker fetch some images at once."""
        items = [Item(url, url) for url in urls]
        return self.client.submit(
            fetch_batch, self.job.id, items, workers=[worker], allow_other_workers=False, pure=False
        )

    def fetch(self, urls: Sequence[str]) -> list[Carried]:
        """Have all workers fetch, each its part of the images at once."""
        workers = sorted(self.client.nthreads())
        parts = [self.start(worker, urls[number :: len(workers)]) for number, worker in enumerate(workers)]
        return [carried for batch in self.client.gather(parts) for carried in batch]


@contextlib.contextmanager
def equipped(client: Client, policy: FetchPolicy) -> Iterator[Equipped]:
    workers = Equipped(client, policy)
    try:
        yield workers
    finally:
        client.unregister_worker_plugin(f"pipeline-{workers.job.id}")


def kept_by_scheduler(client: Client) -> list[str]:
    """Whatever the scheduler keeps of our semaphores, in any of its tables."""

    def find(dask_scheduler, prefix: str) -> list[str]:
        semaphores = dask_scheduler.extensions["semaphores"]
        tables = [semaphores.max_leases, semaphores.lease_timeouts, semaphores.leases, semaphores.events]
        return sorted({name for table in [*tables, *semaphores.metrics.values()] for name in table if prefix in name})

    return client.run_on_scheduler(find, prefix=PREFIX)


def slow(web: Web, count: int, delay_s: float = 0.05) -> list[str]:
    return [web.reply(f"/{number}.jpg", Reply(b"a", delay_s=delay_s)) for number in range(count)]


@pytest.mark.parametrize("limit", [1, 3, 16])
def test_the_limit_of_requests_at_once_holds_across_workers(web: Web, client: Client, limit: int) -> None:
    with equipped(client, replace(LOOPBACK, connections_per_host=limit)) as workers:
        fetched = workers.fetch(slow(web, 20 * limit))
    assert [carried.failure for carried in fetched] == [None] * 20 * limit
    assert web.requests.total() == 20 * limit
    assert web.at_once_max <= limit
    assert kept_by_scheduler(client) == []


@pytest.mark.parametrize("limit", [2, 16])
def test_the_limit_holds_across_jobs_too(web: Web, client: Client, limit: int) -> None:
    """Five jobs, each of which asks from both workers at once."""
    urls = slow(web, 20 * limit)
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(equipped(client, replace(LOOPBACK, connections_per_host=limit))) for _ in range(5)]
        workers = sorted(client.nthreads())
        parts = [(job, worker) for job in jobs for worker in workers]
        client.gather([job.start(worker, urls[number::10]) for number, (job, worker) in enumerate(parts)])
    assert web.requests.total() == 20 * limit
    assert web.at_once_max <= limit


def test_the_limit_of_requests_a_second_holds_across_workers(web: Web, client: Client) -> None:
    """Never more than the rate and one burst. The machine may be busy: a request may be seen a second late."""
    with equipped(client, replace(LOOPBACK, requests_per_second=10)) as workers:
        fetched = workers.fetch(slow(web, 40, delay_s=0))
    assert [carried.failure for carried in fetched] == [None] * 40
    times = sorted(web.asked_at)
    assert len(times) == 40
    for number, begin in enumerate(times):
        for more, end in enumerate(times[number:], start=1):
            assert more <= 10 * (end - begin + 1.0) + 10


def test_one_request_a_second_is_one_worker_s_after_the_other_s(web: Web, client: Client) -> None:
    """Neither keeps the only slot until it has all that it wants."""
    urls = slow(web, 4, delay_s=0)
    with equipped(client, replace(LOOPBACK, requests_per_second=2, connections_per_host=1)) as workers:
        assert [carried.failure for carried in workers.fetch(urls)] == [None] * 4
    assert web.at_once_max == 1


def test_two_hosts_share_no_limit(web: Web, client: Client) -> None:
    hanging = web.reply("/hangs.jpg", Reply(fault="drip"))
    web.serve("/a.jpg", b"a")
    with equipped(client, replace(LOOPBACK, connections_per_host=1)) as workers:
        worker, another = sorted(client.nthreads())
        held = workers.start(worker, [hanging])
        web.wait_until_asked("/hangs.jpg")
        for each in (worker, another):
            (carried,) = workers.start(each, [web.url("/a.jpg", host="localhost")]).result()
            assert carried.payload == b"a"
        assert not held.done()


def test_very_many_hosts_cost_few_connections_and_leave_nothing_on_the_scheduler(client: Client) -> None:
    """Nobody listens there; asking takes a turn all the same. Both workers ask all of them, and leave at once."""
    hosts = [f"127.1.{number // 100}.{number % 100 + 1}" for number in range(300)]
    with equipped(client, replace(LOOPBACK, connections_per_host=4)) as workers:
        fetched = workers.fetch([f"http://{host}:9/a.jpg" for host in hosts for _ in range(2)])
        assert max(client.run(lambda dask_worker: dask_worker.rpc.open).values()) <= 30
    assert {carried.failure.error for carried in fetched if carried.failure} == {"FetchError"}
    assert kept_by_scheduler(client) == []


def test_a_few_workers_need_not_ask_for_one_request_at_a_host(client: Client) -> None:
    """Not with the limit that holds if none is given: most hosts of a long list have a single image."""
    with equipped(client, LOOPBACK) as workers:
        workers.fetch([f"http://127.2.1.{number}:9/a.jpg" for number in range(1, 200)])
        assert kept_by_scheduler(client) == []


@given(st.integers(1, 1000), st.none() | st.floats(0.001, 10_000), st.integers(1, 300))
def test_what_is_shared_and_what_workers_have_of_their_own_is_never_more_than_the_limit(
    connections: int, rate: float | None, n_workers: int
) -> None:
    limit = HostLimit.of(FetchPolicy(connections_per_host=connections, requests_per_second=rate))
    n_reserved = count_reserved(limit)
    n_own = n_workers if n_workers <= n_reserved else 0
    assert n_own + (limit.slots - n_reserved) <= limit.slots
    assert limit.slots - n_reserved >= 1


def test_a_semaphore_that_another_worker_has_closed_is_made_anew(web: Web, client: Client) -> None:
    """Whether this one has slots of it at the moment, or not."""

    def close_all(dask_scheduler, prefix: str) -> None:
        semaphores = dask_scheduler.extensions["semaphores"]
        with warnings.catch_warnings():
            # That some slots have not been given back.
            warnings.simplefilter("ignore")
            for name in [name for name in semaphores.max_leases if name.startswith(prefix)]:
                semaphores.close(name)

    hanging = web.reply("/hangs.jpg", Reply(fault="drip"))
    urls = slow(web, 2)
    with equipped(client, replace(LOOPBACK, connections_per_host=2)) as workers:
        worker = min(client.nthreads())
        workers.start(worker, urls[:1]).result()
        client.run_on_scheduler(close_all, prefix=PREFIX)
        held = workers.start(worker, [hanging])
        web.wait_until_asked("/hangs.jpg")
        client.run_on_scheduler(close_all, prefix=PREFIX)
        (carried,) = workers.start(worker, urls[1:]).result()
        assert carried.failure is None
        assert not held.done()


@pytest.fixture
def _short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_TIMEOUT", "2s")
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_VALIDATION_INTERVAL", "200ms")


@pytest.mark.slow
@pytest.mark.usefixtures("_short_leases")
def test_the_slots_of_a_worker_that_dies_are_the_others_again(web: Web, dask_commands: DaskCommands) -> None:
    dying = dask_commands.add_worker()
    hanging = web.reply("/hangs.jpg", Reply(fault="drip"))
    with dask_commands.connect(1) as client, equipped(client, replace(LOOPBACK, connections_per_host=1)) as workers:
        (its_address,) = client.nthreads()
        held = workers.start(its_address, [hanging])
        web.wait_until_asked("/hangs.jpg")
        dask_commands.add_worker()
        client.wait_for_workers(2, timeout=60)
        (another,) = set(client.nthreads()) - {its_address}
        waiting = workers.start(another, slow(web, 3))
        dying.send_signal(signal.SIGKILL)
        assert [carried.failure for carried in waiting.result(timeout=60)] == [None] * 3
        held.cancel()


def test_a_job_asks_as_gently_as_it_is_told(
    web: Web, tmp_path: Path, client: Client, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)
    urls = [web.reply(f"/{n}.jpg", Reply(make_photograph(n), delay_s=0.02)) for n in range(30)]
    forbidden = web.reply("/no.jpg", Reply(make_photograph(1), headers={"X-Robots-Tag": "noai"}))
    job = pipeline.run(
        [*urls, forbidden],
        tmp_path / "out",
        Recipe(max_width=50, enhance=None),
        client=client,
        allow_private=True,
        connections_per_host=2,
        requests_per_second=200,
        user_agent="lab-crawler/1.0",
    )
    progress = job.wait()
    assert (progress.stored, progress.failed, progress.failed_by_error) == (30, 1, {"RobotsError": 1})
    assert web.at_once_max <= 2
    assert web.headers["/0.jpg"]["User-Agent"].startswith("lab-crawler/1.0 image-pipeline/")
    rows = job.outcomes().set_index("url")
    assert rows.loc[forbidden, "robots"] == "noai"
    assert set(rows.loc[urls, "robots"]) == {""}
