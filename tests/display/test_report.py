from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.display.report import describe_recipe, facts, make_report, render_report
from pipeline.display.report.charts import LONGEST_LABEL, shorten, time_unit
from pipeline.display.wording import format_bytes, format_seconds
from pipeline.domain import Failure, Item, Outcome, Recipe
from pipeline.errors import DestinationError, remedy_for
from pipeline.runner.failures import group_failures
from tests.interfaces.ledgers import JOB, STARTED_S, make_outcomes, to_ledger, to_progress

SCRIPT = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a browser reads in a page: its text, its tags, and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self._is_code = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in {"src", "href"} and value]
        self._is_code = tag in {"script", "style"}

    def handle_endtag(self, tag: str) -> None:
        self._is_code = False

    def handle_data(self, data: str) -> None:
        if not self._is_code:
            self.text += data


def render(outcomes: list[Outcome]) -> str:
    return render_report(to_ledger(outcomes), to_progress(outcomes), JOB)


def failed(url: str, message: str, number: int = 0) -> Outcome:
    item = Item(f"{number:06}", url)
    return Outcome(item, "failed", failure=Failure("fetch", "MissingError", message), finished_at=STARTED_S + 1)


def test_report_shows_the_job_its_totals_and_its_charts() -> None:
    outcomes = make_outcomes(400)
    page = Page(render(outcomes))
    for shown in (JOB.id, JOB.collection, JOB.destination, "enhance restore", "Images a second", "Seconds by stage"):
        assert shown in page.text
    assert f"{to_progress(outcomes).failed}" in page.text
    assert "Fetching by host" in page.text


def test_report_needs_no_network() -> None:
    page = render(make_outcomes(400))
    assert Page(page).loaded == []
    assert not re.search(r"@import|url\(", page.partition("</style>")[0])


def test_report_escapes_what_strangers_wrote() -> None:
    outcomes = [failed(f"https://{SCRIPT}.example.org/{SCRIPT}.jpg", f"cannot fetch {SCRIPT}", n) for n in range(40)]
    job = replace(JOB, collection=f"{SCRIPT}.csv", destination=f"out/{SCRIPT}")
    progress = replace(to_progress(outcomes), status="failed", error=SCRIPT)
    page = render_report(to_ledger(outcomes), progress, job)
    assert SCRIPT not in page
    # Collection, destination, the job's error; the example's host and path, and its message.
    assert Page(page).text.count(SCRIPT) == 6


def test_report_does_not_show_the_query_of_a_signed_url() -> None:
    job = replace(JOB, collection="https://bucket.example.org/list.csv?signature=secret")
    page = render_report(to_ledger(make_outcomes(400)), to_progress([]), job)
    assert "secret" not in page
    assert "https://bucket.example.org/list.csv?…" in page


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_report_works_with_few_outcomes(count: int) -> None:
    page = Page(render(make_outcomes(count)))
    assert f"{count} of {count} images" in page.text


def test_report_without_outcomes_has_no_charts() -> None:
    page = Page(render([]))
    assert "section" in page.tags
    assert "script" not in page.tags


def test_report_of_a_run_in_which_all_failed_gives_the_remedy() -> None:
    page = Page(render([failed(f"out/{n}.jpg", "no such file", n) for n in range(30)]))
    assert remedy_for("MissingError") in page.text
    assert "Fetching by host" not in page.text


def test_report_of_many_outcomes_stays_small() -> None:
    some = make_outcomes(2000)
    many = pd.concat([to_ledger(some)] * 100, ignore_index=True)
    assert len(render_report(many, to_progress(some), JOB)) < len(render(some)) + 5000


def test_report_that_cannot_be_written_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "report.html"
    with pytest.raises(DestinationError, match=r"cannot write the report '.*report.html': No such file"):
        make_report(to_ledger([]), to_progress([]), JOB).save(path)


def test_write_report_writes_what_render_report_returns(tmp_path: Path) -> None:
    make_report(to_ledger([]), to_progress([]), JOB).save(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render([])


def test_report_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Whoever had the old one open reads on in that; a link goes on to lead to the same file."""
    path, link = tmp_path / "report.html", tmp_path / "latest.html"
    path.write_text("last night's")
    link.symlink_to(path)
    with path.open() as old:
        make_report(to_ledger([]), to_progress([]), JOB).save(link)
        assert old.read() == "last night's"
    assert path.read_text(encoding="utf-8") == render([])
    assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_report_goes_into_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text, encoding="utf-8")
        make_report(to_ledger([]), to_progress([]), JOB).save(pipe)
    assert read.result() == render([])
    assert pipe.is_fifo()


def test_speed_counts_every_outcome_once() -> None:
    outcomes = make_outcomes(500)
    speed = facts.speed_over_time(to_ledger(outcomes), to_progress(outcomes))
    bars_s = speed["end_s"] - speed["start_s"]
    progress = to_progress(outcomes)
    assert (speed["stored"] * bars_s).sum() == pytest.approx(progress.stored)
    assert (speed["failed"] * bars_s).sum() == pytest.approx(progress.failed)
    assert speed["end_s"].iloc[-1] == pytest.approx(progress.seconds)


def test_pixels_and_bytes_over_time_add_up_to_those_of_the_ledger() -> None:
    ledger = to_ledger(make_outcomes(500))
    speed = facts.speed_over_time(ledger, to_progress(make_outcomes(500)))
    bars_s = speed["end_s"] - speed["start_s"]
    pixels = ledger["width"].astype("int64") * ledger["height"]
    assert (speed["megapixels"] * bars_s).sum() == pytest.approx(pixels.sum() / 1e6)
    assert (speed["megabytes_in"] * bars_s).sum() == pytest.approx(ledger["bytes_in"].sum() / 1e6)
    assert (speed["megabytes_out"] * bars_s).sum() == pytest.approx(ledger["bytes_out"].sum() / 1e6)


def test_a_report_in_a_notebook_is_a_frame_of_its_own() -> None:
    """Its scripts and styles do not touch the notebook, and a notebook's do not touch it."""
    html = make_report(to_ledger(make_outcomes(50)), to_progress(make_outcomes(50)), JOB)._repr_html_()
    assert html.startswith("<iframe srcdoc=")
    assert 'sandbox="allow-scripts"' in html
    assert html.count("<") == 2


def test_speed_leaves_out_the_outcomes_that_have_no_time() -> None:
    outcomes = [*make_outcomes(50), Outcome(Item("lost", "lost.jpg"), "failed")]
    speed = facts.speed_over_time(to_ledger(outcomes), to_progress(outcomes))
    assert speed["end_s"].max() < 100


def test_outcomes_of_earlier_runs_say_nothing_about_speed() -> None:
    latest = make_outcomes(20)
    earlier = [replace(outcome, finished_at=outcome.finished_at - 86400) for outcome in make_outcomes(30)]
    timed = facts.of_latest_run(to_ledger([*earlier, *latest]), to_progress(latest))
    assert len(timed) == 20


@given(span_s=st.floats(0, 1e7), images=st.integers(0, 10**7))
def test_bar_count_is_at_least_one_and_bounded(span_s: float, images: int) -> None:
    assert 1 <= facts.bar_count(span_s, images) <= facts.MOST_BARS


def test_hosts_are_the_urls_without_user_and_path_and_the_slowest_comes_first() -> None:
    urls = {"https://user:pw@a.example:81/x.jpg": 0.1, "HTTP://b.example/y.jpg": 0.9, "photos/z.jpg": 5.0}
    outcomes = [Outcome(Item(url, url), "stored", seconds={"fetch": spent}) for url, spent in urls.items()]
    hosts = facts.latency_by_host(to_ledger(outcomes))
    assert hosts["host"].tolist() == ["b.example", "a.example:81"]
    assert hosts["p50_s"].tolist() == [0.9, 0.1]


def test_hosts_beyond_the_most_frequent_are_counted_only() -> None:
    outcomes = [Outcome(Item(f"{n}", f"http://{n}.example/"), "stored", seconds={"fetch": 0.1}) for n in range(20)]
    hosts = facts.latency_by_host(to_ledger(outcomes))
    assert len(hosts) + hosts.attrs["left_out"] == 20
    assert len(hosts) == facts.MOST_HOSTS


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"fetch": 5.0, "resize": 2.0, "store": 30.0}, "Of the computing, store takes 94%"),
        ({"fetch": 90.0, "resize": 1.0, "store": 1.0}, "The run waited for its sources"),
        ({"fetch": 1.0, "resize": 1.0, "store": 1.0}, "mostly starting up"),
        ({}, ""),
    ],
)
def test_advice_names_what_the_run_waited_for(seconds: dict[str, float], expected: str) -> None:
    outcome = Outcome(Item("a", "a.jpg"), "stored", seconds=seconds, finished_at=STARTED_S + 10)
    advice = facts.advise(to_ledger([outcome]), to_progress([outcome]), Recipe())
    assert expected in advice
    assert bool(advice) == bool(expected)


def test_failures_are_grouped_with_the_most_frequent_first() -> None:
    groups = group_failures(to_ledger(make_outcomes(2000)))
    assert groups["count"].is_monotonic_decreasing
    assert not groups.duplicated(["stage", "error"]).any()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (0.85, "850 ms"), (0.9996, "1.0 s"), (8.64, "8.6 s"), (99.97, "1 min 40 s"), (3599.7, "1 h 00 min")],
)
def test_seconds_are_shown_as_people_say_them(seconds: float, shown: str) -> None:
    assert format_seconds(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (53_469_521, "53.5 MB"), (999_960, "1.0 MB"), (10**15, "1.0 PB")]
)
def test_bytes_are_shown_with_the_unit_that_fits(count: int, shown: str) -> None:
    assert format_bytes(count) == shown


@given(st.text(max_size=80))
def test_shortened_host_fits_and_keeps_its_end(host: str) -> None:
    shown = shorten(host)
    assert len(shown) <= LONGEST_LABEL
    assert host.endswith(shown.removeprefix("…") if len(host) > LONGEST_LABEL else shown)


@pytest.mark.parametrize(("span_s", "unit"), [(1, "seconds"), (600, "minutes"), (86400, "hours")])
def test_time_is_shown_in_the_unit_in_which_it_is_best_read(span_s: float, unit: str) -> None:
    assert time_unit(span_s)[0] == unit


def test_png_has_no_quality() -> None:
    assert describe_recipe(Recipe(format="png", enhance="restore")) == "inside 1024 × 1024 · enhance restore · png"
    assert describe_recipe(Recipe(fit="cover", max_height=512, enhance=None)) == "cover 1024 × 512 · jpeg, quality 80"
