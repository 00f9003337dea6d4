"""The live widget, at the level of its traits, with a real job behind it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import Client
from ipywidgets import HTML

import pipeline
from pipeline.display import panel as panel_module
from pipeline.display import widget
from pipeline.display.widget import JobPanel
from pipeline.domain import Recipe
from tests.fixtures.photographs import make_photograph
from tests.fixtures.web import Reply, Web

SMALL = Recipe(max_width=100, max_height=100, enhance=None)
PATIENCE_S = 60


@pytest.fixture(autouse=True)
def redis_url(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Keep the state of these tests on their own server."""
    monkeypatch.setenv("REDIS_URL", valkey_url)
    return valkey_url


def follow(job: pipeline.JobHandle) -> JobPanel:
    panel = JobPanel(job)
    panel.follow()
    return panel


def wait_until(part: HTML, is_right: Callable[[str], bool]) -> None:
    """Wait until what a part of the widget says is right."""
    has_come = threading.Event()
    part.observe(lambda change: has_come.set() if is_right(text_of(change["new"])) else None, "value")
    assert is_right(text_of(part.value)) or has_come.wait(PATIENCE_S), part.value


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def test_each_stage_has_a_bar_that_ends_full(photographs: Path, tmp_path: Path, client: Client) -> None:
    panel = follow(pipeline.run(photographs, tmp_path, SMALL, client=client))
    assert panel.join(PATIENCE_S)
    assert {stage: (bar.value, bar.max) for stage, bar in panel.bars.items()} == {
        "fetch": (40, 40),
        "resize": (40, 40),
        "store": (40, 40),
    }
    assert text_of(panel.tallies["store"].value) == "40 / 40"
    assert text_of(panel.heading.value).startswith("completed")
    assert "images/s" in text_of(panel.speed.value)


def test_bars_never_go_back_and_never_beyond_their_end(photographs: Path, tmp_path: Path, client: Client) -> None:
    job = pipeline.run(photographs, tmp_path, SMALL, client=client)
    panel = JobPanel(job)
    values: list[float] = []
    bar = panel.bars["store"]
    bar.observe(lambda change: values.append(change["new"]), "value")
    panel.follow()
    assert panel.join(PATIENCE_S)
    assert values == sorted(values)
    assert values[-1] == bar.max == 40


def test_latest_results_are_pictures(photographs: Path, tmp_path: Path, client: Client) -> None:
    panel = follow(pipeline.run(photographs, tmp_path, SMALL, client=client))
    assert panel.join(PATIENCE_S)
    assert panel.strip.value.count('src="data:image/jpeg;base64,') == widget.STRIP_IMAGES


def test_failures_are_grouped_by_stage_and_error_with_a_remedy(web: Web, tmp_path: Path, client: Client) -> None:
    urls = [
        web.serve("/good.jpg", make_photograph(1)),
        web.url("/missing-1.jpg"),
        web.url("/missing-2.jpg"),
        web.serve("/page.jpg", b"<html>not found</html>"),
    ]
    job = pipeline.run(urls, tmp_path, SMALL, client=client, allow_private=True, retries=0)
    panel = follow(job)
    assert panel.join(PATIENCE_S)
    shown = text_of(panel.failures.value)
    assert re.search(r"\b2 fetch MissingError", shown)
    assert re.search(r"\b1 resize NotAnImageError", shown)
    for remedy in job.failures()["remedy"]:
        assert remedy
        assert remedy in shown
    assert panel.retry_button.description == "Retry failed"
    assert panel.retry_button.layout.display != "none"


def test_what_strangers_wrote_is_no_markup(web: Web, tmp_path: Path, client: Client) -> None:
    url = web.url("/<img/src=x/onerror=alert(1)>.jpg")
    panel = follow(pipeline.run([url], tmp_path, SMALL, client=client, allow_private=True, retries=0))
    assert panel.join(PATIENCE_S)
    assert "MissingError" in panel.failures.value
    assert "<img/" not in panel.failures.value


def test_cancel_stops_the_job_and_resume_goes_on_in_the_same_widget(web: Web, tmp_path: Path, client: Client) -> None:
    urls = [web.serve(f"/{number}.jpg", make_photograph(number)) for number in range(3)]
    urls.append(web.reply("/slow.jpg", Reply(make_photograph(9), delay_s=25), Reply(make_photograph(9))))
    panel = follow(pipeline.run(urls, tmp_path, SMALL, client=client, allow_private=True))
    wait_until(panel.tallies["store"], lambda text: text == "3 / 4")
    assert panel.retry_button.layout.display == "none"
    panel.cancel_button.click()
    wait_until(panel.heading, lambda text: text.startswith("cancelled"))
    assert panel.cancel_button.layout.display == "none"
    assert panel.retry_button.description == "Resume"
    panel.retry_button.click()
    wait_until(panel.heading, lambda text: text.startswith("completed"))
    assert panel.bars["store"].value == 4


def test_a_run_that_code_starts_anew_comes_alive_in_the_widget(web: Web, tmp_path: Path, client: Client) -> None:
    job = pipeline.run([web.url("/late.jpg")], tmp_path, SMALL, client=client, allow_private=True, retries=0)
    panel = follow(job)
    assert panel.join(PATIENCE_S)
    assert "MissingError" in panel.failures.value
    web.serve("/late.jpg", make_photograph(1))
    job.retry_failed(client=client)
    assert panel.join(PATIENCE_S)
    assert panel.failures.value == ""
    assert text_of(panel.heading.value).startswith("completed")
    assert panel.retry_button.layout.display == "none"


def test_a_ledger_that_cannot_be_read_is_said_in_the_widget(photographs: Path, tmp_path: Path, client: Client) -> None:
    job = pipeline.run(photographs, tmp_path, Recipe(max_width=100, enhance=None), client=client)
    job.wait(90)
    # Its results have gone, and a file is where its folder was.
    elsewhere = replace(job.job, destination=str(photographs / "spring" / "00.jpg"))
    panel = JobPanel(pipeline.JobHandle(elsewhere, job._store, job._settings))
    panel.follow()
    wait_until(panel.note, lambda text: "cannot list the ledger" in text)


def test_a_job_that_runs_elsewhere_has_the_same_widget(photographs: Path, tmp_path: Path, client: Client) -> None:
    job = pipeline.run(photographs, tmp_path, SMALL, client=client)
    elsewhere = pipeline.JobHandle(job.job, job._store, job._settings)
    panel = follow(elsewhere)
    job.wait(90)
    assert panel.join(PATIENCE_S)
    assert panel.bars["store"].value == 40
    assert panel.strip.value.count("<img") == widget.STRIP_IMAGES


def test_a_run_that_ended_does_not_paint_over_the_one_that_goes_on(web: Web, tmp_path: Path) -> None:
    """With a local cluster of its own, a run ends seconds after its status: the next one begins in between."""
    urls = [web.serve(f"/{number}.jpg", make_photograph(number)) for number in range(3)]
    urls.append(web.reply("/slow.jpg", Reply(make_photograph(9), delay_s=25), Reply(make_photograph(9))))
    job = pipeline.run(urls, tmp_path, SMALL, workers=1, allow_private=True)
    panel = follow(job)
    web.wait_until_asked("/slow.jpg", 60)
    statuses: list[str] = []
    panel.heading.observe(lambda change: statuses.append(text_of(change["new"]).split()[0]), "value")
    panel.cancel_button.click()
    wait_until(panel.heading, lambda text: text.startswith("cancelled"))
    panel.retry_button.click()
    wait_until(panel.heading, lambda text: text.startswith("completed"))
    assert panel.join(PATIENCE_S)
    assert statuses == ["cancelled", "processing", "completed"]
    job.wait(90)


def test_secrets_of_a_place_are_not_shown(photographs: Path, tmp_path: Path, client: Client) -> None:
    job = pipeline.run(photographs, tmp_path, SMALL, client=client)
    job.wait(90)
    place = "ftp://user:hunter2@example.org/out"
    snapshot = panel_module.render_snapshot(
        replace(job.job, destination=place), job.progress, pictures=[(f"{place}/a.jpg", "data:,")]
    )
    assert "example.org/out" in snapshot["text/plain"]
    assert "hunter2" not in str(snapshot)
