"""The page as a person meets it: real Chromium, real schedulers, real jobs."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from playwright.sync_api import Locator, Page, expect

import pipeline
from pipeline.domain import STAGES, Progress, Recipe
from pipeline.errors import remedy_for
from pipeline.runner.announcer import TOPIC, Announcer
from pipeline.runner.cluster import open_client
from tests.fixtures.photographs import make_photograph
from tests.fixtures.web import Reply, Web
from tests.interfaces.dashboard.conftest import Served

# The names in the data that one of Dask's own charts draws.
NAMES_SHOWN = """(window.Bokeh?.documents[0]?.roots().flatMap(root => root.renderers)
    .flatMap(drawn => [...drawn.data_source?.data.name ?? []]))"""

SMALL = Recipe(max_width=100, max_height=100, enhance="sharpen")


@pytest.fixture(autouse=True)
def redis_url(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)


@pytest.fixture
def local_dashboard(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where the dashboard of the next local cluster will be, so that no other on this machine is meant."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr("pipeline.runner.cluster.DASHBOARD_PORT", port)
    return f"http://127.0.0.1:{port}"


def urls_that_stop(web: Web, quick: int, silent: int) -> list[str]:
    """Return URLs of which the last ones never answer: a job that stays half done."""
    good = [web.serve(f"/{number}.jpg", make_photograph(number % 5)) for number in range(quick)]
    return good + [web.reply(f"/silent-{number}.jpg", Reply(delay_s=3600)) for number in range(silent)]


@contextmanager
def half_done(urls: list[str], destination: Path, **options: Any) -> Iterator[pipeline.JobHandle]:
    """Run a job that ends with the block."""
    job = pipeline.run(urls, destination, SMALL, allow_private=True, timeout=3600, **options)
    try:
        yield job
    finally:
        job.cancel()
        job.wait(90)


def card_of(page: Page, job: pipeline.JobHandle) -> Locator:
    return page.get_by_role("article", name=f"Job {job.id}")


def counts_shown(card: Locator) -> dict[str, str]:
    rows = card.locator(".stages tr").all()
    return {row.locator("th").inner_text(): row.locator(".count").inner_text() for row in rows}


def counts_of(progress: Progress) -> dict[str, str]:
    return {stage: f"{done} / {progress.total}" for stage, done in progress.done_by_stage.items()}


@pytest.mark.slow
def test_a_local_cluster_shows_its_job_by_itself_while_it_runs(
    web: Web, page: Page, local_dashboard: str, tmp_path: Path
) -> None:
    urls = urls_that_stop(web, quick=24, silent=12)
    with half_done(urls, tmp_path, workers=1, job_id="9-local") as job:
        progress = next(progress for progress in job.updates() if progress.stored >= 8)
        page.goto(f"{local_dashboard}/status")
        page.get_by_role("link", name="Pipeline", exact=True).first.click()
        page.wait_for_url(f"{local_dashboard}/pipeline")
        card = card_of(page, job)
        expect(card.locator(".chip")).to_have_text("processing")
        # The driver says every few hundredths of a second how it stands; the page is soon to say the same.
        for progress in job.updates():
            if counts_shown(card) == counts_of(progress):
                break
        assert not progress.is_finished
        assert [*counts_shown(card)] == [*STAGES]
        assert 8 <= progress.done_by_stage["store"] < progress.total == 36
        expect(card.locator(".tasks tr.fetch td").nth(2)).not_to_have_text("0")
        page.wait_for_function(
            "share => Math.abs(document.querySelector('tr.store .bar i').getBoundingClientRect().width"
            " / document.querySelector('tr.store .bar').getBoundingClientRect().width - share) < 0.01",
            arg=progress.done_by_stage["store"] / 36,
        )


@pytest.mark.slow
def test_a_scheduler_of_dask_s_own_command_shows_how_jobs_ended(
    scheduler: Served, web: Web, page: Page, tmp_path: Path
) -> None:
    page.goto(f"{scheduler.dashboard}/pipeline")
    urls = [web.serve(f"/{number}.jpg", make_photograph(number)) for number in range(20)]
    urls += [web.serve(f"/page-{number}.jpg", b"<html>") for number in range(3)]
    jobs = [
        pipeline.run(
            urls, tmp_path / name, SMALL, cluster=scheduler.address, allow_private=True, retries=0, job_id=f"{name}-job"
        )
        for name in ("a", "b")
    ]
    for job in jobs:
        progress = job.wait(90)
        card = card_of(page, job)
        expect(card.locator(".chip")).to_have_text("completed")
        expect(card).to_have_class("card ended")
        expect(card.locator(".facts .main b")).to_have_text("23 / 23")
        assert counts_shown(card) == counts_of(progress) == dict.fromkeys(STAGES, "23 / 23")
        (error,) = progress.failed_by_error
        expect(card.locator(".failures li")).to_have_text(f"3 × {error} {remedy_for(error)}")
        expect(card.locator(".stages tr.resize td.bad")).to_have_text("3 failed")


def test_the_chart_has_a_line_for_each_job(scheduler: Served, photographs: Path, page: Page, tmp_path: Path) -> None:
    page.goto(f"{scheduler.dashboard}/pipeline")
    job = pipeline.run(photographs, tmp_path, SMALL, cluster=scheduler.address)
    job.wait(90)
    page.wait_for_function(
        """id => Bokeh.documents[0].get_model_by_name("speed").renderers[0].data_source.data.job.includes(id)""",
        arg=job.id,
    )


def test_a_scheduler_without_jobs_says_what_to_do(local_dashboard: str, page: Page) -> None:
    with open_client(None, workers=1):
        page.goto(f"{local_dashboard}/pipeline")
        expect(page.get_by_text("pipeline run photos/ results/")).to_be_visible()
        expect(page.locator(".speed")).to_be_hidden()


def test_a_job_whose_driver_is_gone_is_stalled(scheduler: Served, page: Page) -> None:
    with Client(scheduler.address, set_as_default=False) as client:
        Announcer(client, Progress("lost", "processing", 10, done_by_stage={"fetch": 4, "store": 1}))
        page.goto(f"{scheduler.dashboard}/pipeline")
        card = page.get_by_role("article", name="Job lost")
        expect(card.locator(".chip")).to_have_text("processing")
    expect(card.locator(".chip")).to_have_text("stalled")
    expect(card).to_contain_text("pipeline resume lost")


def test_what_strangers_write_to_the_topic_stays_text(scheduler: Served, page: Page) -> None:
    markup = "<img src=x onerror='document.title=1'>"
    fields = {"id": markup, "status": "processing", "fetched": 1, "errors": {markup: 2}}
    with Client(scheduler.address, set_as_default=False) as client:
        for message in ("nonsense", {"client": 1}, {"client": client.id, "job": {"status": "?"}}):
            client.log_event(TOPIC, message)
        client.log_event(TOPIC, {"client": client.id, "job": fields})
        page.goto(f"{scheduler.dashboard}/pipeline")
        card = page.get_by_role("article").filter(has_text=markup)
        expect(card.locator("h2")).to_have_text(markup)
        expect(card.locator("img")).to_have_count(0)


@pytest.mark.slow
def test_long_ids_and_narrow_windows_break_nothing(
    scheduler: Served, photographs: Path, page: Page, tmp_path: Path
) -> None:
    job = pipeline.run(photographs, tmp_path, SMALL, cluster=scheduler.address, job_id="7" + "-long" * 19)
    job.wait(90)
    for width in (1400, 900, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{scheduler.dashboard}/pipeline")
        expect(card_of(page, job)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # Dask's menu is fixed: what it covers cannot be seen.
        menu, first = (page.locator(name).bounding_box() for name in (".navbar", ".cluster"))
        assert menu is not None
        assert first is not None
        assert menu["y"] + menu["height"] <= first["y"]


def test_a_word_that_somebody_has_marked_stays_marked(scheduler: Served, web: Web, page: Page, tmp_path: Path) -> None:
    page.goto(f"{scheduler.dashboard}/pipeline")
    urls = urls_that_stop(web, quick=4, silent=1)
    with half_done(urls, tmp_path, cluster=scheduler.address) as job:
        heading = card_of(page, job).locator("h2")
        heading.select_text()
        elapsed = card_of(page, job).locator(".facts .elapsed dd")
        before = elapsed.inner_text()
        expect(elapsed).not_to_have_text(before)
        assert page.evaluate("getSelection().toString().trim()") == job.id


def test_jupyterlab_finds_the_page_among_dask_s_plots(scheduler: Served, page: Page) -> None:
    with urllib.request.urlopen(f"{scheduler.dashboard}/individual-plots.json") as answer:
        assert b'"Individual Pipeline": "/individual-pipeline"' in answer.read()
    page.goto(f"{scheduler.dashboard}/individual-pipeline")
    expect(page.locator(".cluster")).to_contain_text("1 worker")
    expect(page.locator(".navbar")).to_have_count(0)


@pytest.mark.slow
def test_dask_s_own_pages_and_metrics_name_the_four_stages(
    scheduler: Served, web: Web, page: Page, tmp_path: Path
) -> None:
    # The task stream begins when somebody opens it first.
    page.goto(f"{scheduler.dashboard}/individual-task-stream")
    page.wait_for_function(f"{NAMES_SHOWN} !== undefined")
    with half_done(urls_that_stop(web, quick=8, silent=2), tmp_path, cluster=scheduler.address):
        stages = [*STAGES]
        page.wait_for_function(f"stages => stages.every(stage => {NAMES_SHOWN}.includes(stage))", arg=stages)
        with urllib.request.urlopen(f"{scheduler.dashboard}/metrics") as answer:
            text = answer.read().decode()
        page.goto(f"{scheduler.dashboard}/individual-progress")
        page.wait_for_function(f"stages => stages.every(stage => {NAMES_SHOWN}?.includes(stage))", arg=stages)
    prefixes = re.findall(r'dask_scheduler_prefix_state_totals_total{.*?task_prefix_name="(\w+)"', text)
    assert set(prefixes) >= {*STAGES}


def test_no_event_holds_a_place_or_a_secret(web: Web, scheduler: Served, tmp_path: Path) -> None:
    url = web.serve("/one.jpg", make_photograph(1)) + "?token=S3CRET"
    broken = web.serve("/broken.jpg", b"<html>") + "?token=S3CRET"
    with Client(scheduler.address, set_as_default=False) as client:
        job = pipeline.run([url], tmp_path, SMALL, client=client, allow_private=True)
        assert job.wait(90).result is not None
        failed = pipeline.run([broken], tmp_path, SMALL, client=client, allow_private=True)
        assert failed.wait().failed == 1
        events = [event for _, event in client.get_events(TOPIC) if _job_id(event) in (job.id, failed.id)]
    assert {_job_id(event) for event in events} == {job.id, failed.id}
    for text in ("S3CRET", "token", "http:", str(tmp_path)):
        assert text not in str(events)


def _job_id(event: object) -> str | None:
    return event["job"].get("id") if isinstance(event, Mapping) and "job" in event else None
