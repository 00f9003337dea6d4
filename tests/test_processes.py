"""Whole processes: killed, interrupted, cancelled from elsewhere, and gone on with."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

from pipeline.state.embedded import is_answering
from tests.fixtures.photographs import make_photograph
from tests.fixtures.valkey import flush
from tests.fixtures.web import Reply, Web
from tests.interfaces.commands import Ended, Pipeline, Running, ledger_rows, stored_bytes, wait_until

IMAGES = 300
JOB = "nightly"

USERS_SCRIPT = """
import sys
import pipeline

if __name__ == "__main__":
    pipeline.run(sys.argv[1], sys.argv[2], job_id="nightly", allow_private=True)
"""


@dataclass(frozen=True)
class Undisturbed:
    """What a run that nobody disturbed leaves."""

    rows: list[dict[str, Any]]
    files: dict[str, str]


@dataclass(frozen=True)
class Site:
    """A web site, the manifest of its images, and the command line that runs it."""

    web: Web
    manifest: Path
    out: Path
    pipeline: Pipeline
    job: str = JOB

    @property
    def run(self) -> tuple[str, ...]:
        """The arguments of the run."""
        recipe = ("--max-width", "64", "--max-height", "64", "--timeout", "10", "--retries", "0", "--enhance", "none")
        return ("run", str(self.manifest), str(self.out), "--job-id", self.job, "--allow-private", *recipe)

    def status(self) -> str:
        """Return the job's status, as another process sees it."""
        return str(self.pipeline("status", self.job, "--json").lines[0]["status"])

    def wait_for_ledger(self, running: Running) -> None:
        """Wait until the run is in its middle: the ledger, written every few seconds, has its first rows."""
        running.wait_until(lambda: ledger_rows(self.out, self.job), "rows in the ledger")

    def wait_for_images(self, running: Running) -> None:
        """Wait until the run has stored its first image."""
        running.wait_until(lambda: any(self.out.glob("*.jpg")), "a stored image")


def make_site(web: Web, folder: Path, environment: dict[str, str], delay_s: float) -> Site:
    """Serve the same images as ever, a few of them missing or broken."""
    bodies = [make_photograph(seed, 96, 72) for seed in range(7)]
    urls = []
    for number in range(IMAGES):
        body = b"no image" if number % 50 == 11 else bodies[number % 7]
        status = 404 if number % 50 == 7 else 200
        urls.append(web.reply(f"/{number:03}.jpg", Reply(body, status, delay_s=delay_s)))
    manifest = folder / "manifest.txt"
    manifest.write_text("\n".join(urls))
    return Site(web, manifest, folder / "out", Pipeline(folder, environment))


@pytest.fixture(scope="module")
def undisturbed(web_server: Web, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Run the collection once without a fault."""
    web_server.reset()
    flush(valkey_server)
    folder = tmp_path_factory.mktemp("undisturbed")
    site = make_site(web_server, folder, {"REDIS_URL": valkey_server}, delay_s=0.0)
    assert site.pipeline(*site.run).code == 1
    return Undisturbed(ledger_rows(site.out, JOB), stored_bytes(site.out))


@pytest.fixture
def site(undisturbed: Undisturbed, web: Web, valkey_url: str, tmp_path: Path) -> Site:
    """Serve the collection so slowly that a run can be caught in its middle."""
    return make_site(web, tmp_path, {"REDIS_URL": valkey_url}, delay_s=0.5)


def wait_for_workers(running: Running) -> list[psutil.Process]:
    """Wait until the first process of the cluster begins to start; return all that there are."""
    running.wait_until(lambda: len(running.family()) > 1, "a worker process")
    return running.family()


@contextmanager
def watch(site: Site, running: Running, *options: str) -> Iterator[Running]:
    """Watch a running job from a second process, which hears of it from the first line on."""
    site.wait_for_images(running)
    with site.pipeline.start("watch", site.job, *options) as watching:
        wait_for_listener(site, watching)
        yield watching


@contextmanager
def follow(site: Site, running: Running) -> Iterator[Running]:
    """Start a job a second time as soon as the first start has it, until the second hears of it too."""
    wait_for_workers(running)
    with site.pipeline.start(*site.run) as second:
        wait_for_listener(site, second)
        yield second


def wait_for_listener(site: Site, listening: Running) -> None:
    """Wait until one more process hears of the job."""
    with Redis.from_url(site.pipeline.environment["REDIS_URL"]) as redis:
        channel = f"job:{site.job}"
        before = count_listeners(redis, channel)
        listening.wait_until(lambda: count_listeners(redis, channel) > before, "a listener")


def count_listeners(redis: Redis, channel: str) -> int:
    return int(dict(redis.pubsub_numsub(channel))[channel.encode()])


def assert_none_left(family: Sequence[psutil.Process], timeout_s: float = 10.0) -> None:
    _, alive = psutil.wait_procs(family, timeout_s)
    assert not alive


def assert_stopped_cleanly(ended: Ended, site: Site) -> None:
    assert (ended.code, ended.err) == (130, "")
    assert f"go on with pipeline resume {site.job}" in ended.out
    assert site.status() == "cancelled"


def assert_completed_as(undisturbed: Undisturbed, site: Site, ended: Ended) -> None:
    assert (ended.code, ended.err) == (1, "")
    assert site.status() == "completed"
    assert ledger_rows(site.out, site.job) == undisturbed.rows
    assert stored_bytes(site.out) == undisturbed.files


@pytest.mark.slow
@pytest.mark.parametrize("how", ["resume", "run"])
def test_a_killed_run_is_gone_on_with_as_if_nothing_had_been(site: Site, undisturbed: Undisturbed, how: str) -> None:
    """And what the ledger had is not fetched again; the workers die with their driver."""
    with site.pipeline.start(*site.run) as running:
        site.wait_for_ledger(running)
        family = running.family()
        running.send(signal.SIGKILL)
        running.end()
        assert_none_left(family)
    recorded = ledger_rows(site.out, JOB)
    assert 0 < len(recorded) < IMAGES

    ended = site.pipeline(*(("resume", JOB) if how == "resume" else site.run))

    assert_completed_as(undisturbed, site, ended)
    requests = {site.web.url(path): count for path, count in site.web.requests.items()}
    assert [requests[row["url"]] for row in recorded] == [1] * len(recorded)


@pytest.mark.slow
def test_a_running_job_is_watched_guarded_and_cancelled_from_elsewhere(site: Site, undisturbed: Undisturbed) -> None:
    with (
        site.pipeline.start(*site.run) as running,
        follow(site, running) as second,
        watch(site, running, "--json") as watching,
    ):
        cancelled = site.pipeline("cancel", JOB)
        asked = site.web.requests.total()
        began = time.monotonic()
        assert_stopped_cleanly(running.end(), site)
        assert time.monotonic() - began < 10  # the workers' end; the job has ended before `cancel` has
        watched, followed = watching.end(), second.end()
    assert (cancelled.code, cancelled.err) == (0, "")
    assert cancelled.out.startswith(f"{JOB} cancelled")
    assert site.web.requests.total() == asked < IMAGES
    assert (watched.code, watched.err) == (130, "")
    assert {line["status"] for line in watched.lines} == {"processing", "cancelled"}
    assert (followed.code, followed.err) == (130, "")
    assert "cancelled" in followed.out
    assert_completed_as(undisturbed, site, site.pipeline("resume", JOB))


@pytest.mark.slow
def test_of_two_runs_one_works_and_should_it_be_killed_the_other(site: Site, undisturbed: Undisturbed) -> None:
    with site.pipeline.start(*site.run) as running, follow(site, running) as second:
        site.wait_for_ledger(running)
        assert len(second.family()) == 1
        running.send(signal.SIGKILL)
        running.end()
        recorded = ledger_rows(site.out, JOB)
        ended = second.end()
    assert_completed_as(undisturbed, site, ended)
    word, *_ = ended.out.splitlines()
    assert word == f"{JOB} is being run by another process already: following it"
    assert f"{JOB} has lost that process: going on with it here" in ended.out
    requests = {site.web.url(path): count for path, count in site.web.requests.items()}
    assert [requests[row["url"]] for row in recorded] == [1] * len(recorded)


def test_ctrl_c_ends_a_following_but_not_the_job(site: Site) -> None:
    with site.pipeline.start(*site.run) as running:
        with follow(site, running) as second:
            second.interrupt()
            followed = second.end()
        assert (followed.code, followed.err) == (130, "")
        assert f"pipeline watch {JOB}" in followed.out
        assert running.is_running()
        assert site.status() == "processing"


@pytest.mark.parametrize("when", ["starting", "running"])
def test_ctrl_c_cancels_cleanly_however_often(site: Site, when: str) -> None:
    """No traceback, of the workers neither: in a terminal they get the signal too."""
    with site.pipeline.start(*site.run) as running:
        family = wait_for_workers(running)
        if when == "running":
            site.wait_for_images(running)
            family = running.family()
        for _ in range(3):
            running.interrupt()
        assert_stopped_cleanly(running.end(), site)
        assert_none_left(family)
    if when == "starting":
        assert not site.web.requests


def test_sigterm_is_ctrl_c(site: Site) -> None:
    with site.pipeline.start(*site.run) as running:
        site.wait_for_images(running)
        family = running.family()
        running.send(signal.SIGTERM)
        assert_stopped_cleanly(running.end(), site)
        assert_none_left(family)


def test_ctrl_c_before_anything_has_begun_leaves_nothing(site: Site) -> None:
    with site.pipeline.start(*site.run) as running:
        running.wait_until(lambda: "multiarray" in _mapped_files(running), "the imports")
        running.interrupt()
        ended = running.end()
    assert (ended.code, ended.out, ended.err) == (130, "", "")
    assert site.pipeline("jobs", "--json").out == ""


def test_ctrl_c_ends_the_watching_but_not_the_job(site: Site) -> None:
    with site.pipeline.start(*site.run) as running, watch(site, running) as watching:
        watching.interrupt()
        watched = watching.end()
        assert (watched.code, watched.err) == (130, "")
        assert f"pipeline watch {JOB}" in watched.out
        assert running.is_running()
        assert site.status() == "processing"


def test_a_script_that_does_not_wait_leaves_a_cancelled_job(site: Site) -> None:
    script = site.out.with_name("script.py")
    script.write_text(USERS_SCRIPT)
    with site.pipeline.start_python(script, site.manifest, site.out) as running:
        ended = running.end()
    assert ended == Ended(0, "", "")
    assert site.status() == "cancelled"


@pytest.mark.slow
def test_processes_share_the_embedded_server_and_leave_none(web: Web, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """One is killed that started it: the other goes on. The jobs are still known when all have gone."""
    state = tmp_path / "state"
    first = make_site(web, tmp_path, {"PIPELINE_DATA_DIR": str(state)}, delay_s=0.5)
    second = replace(first, out=tmp_path / "second", job="second")
    with first.pipeline.start(*first.run) as killed:
        killed.wait_until(lambda: is_answering(state), "the server")
        with second.pipeline.start(*second.run) as going:
            first.wait_for_ledger(killed)
            going.wait_until(lambda: second.out.exists(), "the second run")
            assert {line["job_id"] for line in first.pipeline("jobs", "--json").lines} == {JOB, "second"}
            killed.send(signal.SIGKILL)
            killed.end()
            assert_completed_as(undisturbed, second, going.end())
    wait_until(lambda: not is_answering(state), "the end of the server")
    wait_until(lambda: not _processes_of(state), "the end of its keeper")
    status_by_job = {line["job_id"]: line["status"] for line in first.pipeline("jobs", "--json").lines}
    # The lease of the killed one holds for some seconds more.
    assert status_by_job.pop(JOB) in {"processing", "stalled"}
    assert status_by_job == {"second": "completed"}


def _processes_of(folder: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline", "cwd"])
    return [process for process in found if str(folder) in {process.info["cwd"], *(process.info["cmdline"] or ())}]


def _mapped_files(running: Running) -> str:
    return " ".join(mapped.path for mapped in psutil.Process(running.pid).memory_maps())
