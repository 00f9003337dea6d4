"""Where tasks run: a scheduler that somebody else started, and workers that die."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import dask
import pytest
from distributed import Client

import pipeline
from pipeline.domain import Recipe
from pipeline.errors import ClusterError
from pipeline.runner import cluster
from pipeline.runner.cluster import Crew, check_scheduler, open_client
from pipeline.runner.driver import Driver
from pipeline.runner.images import Carried, Equipment
from pipeline.runner.ledger import Ledger
from pipeline.runner.starting import WORKER_ENVIRONMENT
from pipeline.sources import open_collection
from pipeline.state import connect
from tests.fixtures.cluster import DaskCommands
from tests.interfaces.commands import wait_until

SMALL = Recipe(max_width=100, max_height=100, enhance=None)


class DeadlyEquipment(Equipment):
    """Its worker dies of one image, as of a codec that crashes."""

    def resize(self, carried: Carried) -> Carried:
        if carried.item.key.endswith("07"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().resize(carried)


def test_a_scheduler_of_dask_s_own_commands_runs_a_job(
    photographs: Path, tmp_path: Path, scheduler_address: str, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)
    job = pipeline.run(photographs, tmp_path / "out", SMALL, cluster=scheduler_address)
    progress = job.wait()
    assert (progress.status, progress.stored) == ("completed", 40)


def test_the_workers_of_a_job_end_with_it_but_not_those_of_others(scheduler_address: str) -> None:
    with open_client(scheduler_address) as client:
        assert Crew(client).count_threads() == 2
    check_scheduler(scheduler_address)


def test_an_address_without_a_scheduler_is_named() -> None:
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:1'"):
        check_scheduler("tcp://127.0.0.1:1", timeout_s=1.0)
    with pytest.raises(ClusterError, match="nonsense"):
        check_scheduler("nonsense://", timeout_s=1.0)


def test_local_workers_have_the_allocator_s_settings(client: Client) -> None:
    for environment in client.run(lambda: dict(os.environ)).values():
        assert WORKER_ENVIRONMENT.items() <= environment.items()


def test_local_workers_are_profiled_no_more_often_than_costs_nothing(client: Client) -> None:
    intervals = client.run(lambda dask_worker: dask_worker.periodic_callbacks["profile"].callback_time)
    assert set(intervals.values()) == {200.0}


def test_local_clusters_listen_on_loopback_only(client: Client) -> None:
    services = client.scheduler_info()["services"]
    assert client.scheduler.address.startswith("tcp://127.0.0.1:")
    hosts = client.run_on_scheduler(
        lambda dask_scheduler: [
            socket.getsockname()[0]
            for socket in dask_scheduler.http_server._sockets.values()  # the only place that knows
        ]
    )
    assert services["dashboard"]
    assert set(hosts) == {"127.0.0.1"}


@pytest.mark.slow
def test_an_image_that_kills_workers_is_named_and_costs_nothing_else(
    photographs: Path, tmp_path: Path, valkey_url: str
) -> None:
    job = pipeline.Job("deadly", str(photographs), str(tmp_path), SMALL)
    with connect(valkey_url, tmp_path) as store:
        before = store.create(job)
        lease = store.acquire(job)
        driver = Driver(
            job,
            open_collection(job.collection),
            lease,
            before,
            lambda: open_client(None, workers=2),
            equipment_type=DeadlyEquipment,
        )
        driver.run()
        progress = store.progress("deadly")
    assert (progress.status, progress.stored, progress.failed) == ("completed", 39, 1)
    rows = Ledger(str(tmp_path), "deadly").read().to_pylist()
    (failed,) = [row for row in rows if row["status"] == "failed"]
    assert (failed["key"], failed["stage"], failed["error"]) == ("autumn/07", "resize", "WorkerLostError")
    assert len(rows) == 40


@pytest.mark.slow
def test_a_local_cluster_gets_workers_again_that_dask_has_given_up() -> None:
    """So it does when a worker is dead at the moment at which Dask looks whether it came back after its last death."""
    with open_client(None, workers=2) as client, dask.config.set({"distributed.deploy.lost-worker-timeout": "0.05s"}):
        crew = Crew(client)
        pids = client.run(os.getpid)
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not client.cluster.workers, "workers that are given up")
        assert crew.count_threads() == 1
        wait_until(lambda: len(client.nthreads()) == 2, "new workers", 60)
        assert crew.count_threads() == 2
        assert pids.keys().isdisjoint(client.nthreads())


@pytest.mark.slow
def test_a_cluster_without_workers_is_told_once(dask_commands: DaskCommands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers may come any time: they are waited for."""
    told: list[str] = []
    # Not pytest's own record of the log: local clusters that other tests share silence that.
    monkeypatch.setattr(cluster.log, "warning", told.append)
    file = str(dask_commands.scheduler_file)
    with Client(scheduler_file=file, set_as_default=False, timeout=60) as client:
        crew = Crew(client)
        for _ in range(3):
            assert crew.count_threads() == 1
    assert told == ["the Dask cluster has no workers; the run waits for some"]
