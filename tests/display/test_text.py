"""How a job looks: bars, lines and JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.display.text import (
    BarsView,
    JsonView,
    LinesView,
    SilentView,
    choose_view,
    describe,
    name_collection,
    open_console,
    open_terminal_view,
    render_bars,
    summary,
)
from pipeline.domain import Job, Progress, Recipe

JOB = Job("nightly", "/photos", "/out", Recipe(enhance="sharpen"))
STARTING = Progress("nightly", "processing", done_by_stage=dict.fromkeys(JOB.recipe.stages, 0))
RUNNING = Progress(
    "nightly",
    "processing",
    total=4000,
    stored=1150,
    skipped=30,
    failed=20,
    done_by_stage={"fetch": 1500, "resize": 1300, "enhance": 1250, "store": 1200},
    failed_by_stage={"fetch": 20},
    bytes_in=2_400_000_000,
    bytes_out=310_000_000,
    seconds=61.0,
    images_per_second=19.7,
    eta_seconds=142.0,
)
ENDED = replace(RUNNING, status="completed", total=1200, eta_seconds=None)


def draw(progress: Progress, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as captured:
        console.print(render_bars(JOB, progress))
    return captured.get().splitlines()


def lines_of(snapshots: Sequence[Progress]) -> list[str]:
    out = io.StringIO()
    with LinesView(JOB, Console(file=out)) as view:
        for progress in snapshots:
            view.show(progress)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 200])
def test_there_is_a_bar_for_each_stage_on_a_line_of_its_own(width: int) -> None:
    heading, *bars, speed = draw(RUNNING, width)
    assert "nightly" in heading
    assert [bar.split()[0] for bar in bars] == ["fetch", "resize", "enhance", "store"]
    assert all("━" in bar for bar in bars)
    assert "1,500 / 4,000" in bars[0]
    assert "20 failed" in bars[0]
    assert "19.7 images/s" in speed


def test_stages_that_the_recipe_has_not_get_no_bar() -> None:
    assert not any("enhance" in line for line in draw(replace(RUNNING, done_by_stage={"fetch": 1, "store": 1})))


def test_a_job_that_starts_says_so_instead_of_noughts() -> None:
    assert "starting the workers" in draw(STARTING)[-1]
    assert describe(STARTING) == "processing: starting the workers …"


def test_describe_tells_what_is_known_and_leaves_out_what_is_nought() -> None:
    assert describe(RUNNING) == ("processing: 1,200 of 4,000, 30 skipped, 20 failed, 19.7 images/s, 2 min 22 s left")
    assert describe(Progress("nightly", "queued")) == "queued: 0 of ?"
    assert describe(Progress("nightly", "completed", total=3, stored=3)) == "completed: 3 of 3"


def test_the_first_moments_promise_no_end() -> None:
    """One image in the first half second would mean hours."""
    assert "left" not in describe(replace(RUNNING, seconds=0.5))
    assert not any("left" in line for line in draw(replace(RUNNING, seconds=0.5)))


@pytest.mark.parametrize(("is_terminal", "view"), [("1", BarsView), ("0", SilentView)])
def test_whoever_waits_sees_bars_on_a_terminal_and_nothing_elsewhere(
    is_terminal: str, view: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", is_terminal)
    assert type(open_terminal_view(JOB)) is view


def test_lines_come_now_and_then_and_whenever_the_status_changes() -> None:
    seconds = (0.1, 0.2, 5.0, 5.2, 5.3, 10.3)
    shown = lines_of([replace(RUNNING, seconds=second, stored=i) for i, second in enumerate(seconds)] + [ENDED])
    assert [line.split(",")[0] for line in shown] == [
        "nightly processing: 50 of 4",
        "nightly processing: 53 of 4",
        "nightly processing: 55 of 4",
        "nightly completed: 1",
    ]


def test_lines_are_plain_and_whole() -> None:
    """No escape codes, no markup, no wrapping: whoever reads a log greps it."""
    job = replace(JOB, id="a" * 100)
    out = io.StringIO()
    LinesView(job, Console(file=out, width=40)).show(replace(RUNNING, job_id=job.id))
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


def test_json_lines_hold_the_summary_s_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonView() as view:
        for progress in (RUNNING, replace(RUNNING, seconds=61.5), replace(RUNNING, seconds=62.5), ENDED):
            view.show(progress)
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in shown] == ["processing", "processing", "completed"]
    assert all(summary(RUNNING).keys() < line.keys() for line in shown)


def test_the_summary_has_the_documented_fields_in_their_order() -> None:
    assert summary(ENDED) == {
        "job_id": "nightly",
        "status": "completed",
        "total": 1200,
        "stored": 1150,
        "skipped": 30,
        "failed": 20,
        "seconds": 61.0,
        "images_per_second": 19.7,
    }
    assert list(summary(ENDED))[:3] == ["job_id", "status", "total"]


def test_the_view_fits_where_the_output_goes() -> None:
    terminal, pipe = Console(file=io.StringIO(), force_terminal=True), Console(file=io.StringIO())
    assert isinstance(choose_view(JOB, terminal, as_json=False), BarsView)
    assert isinstance(choose_view(JOB, pipe, as_json=False), LinesView)
    assert isinstance(choose_view(JOB, terminal, as_json=True), JsonView)


def test_a_list_is_not_named_after_the_file_that_keeps_it() -> None:
    assert name_collection(replace(JOB, collection="/out/_ledger/nightly/_collection.jsonl")) == "a list"
    assert name_collection(replace(JOB, collection="/out-of-town/photos")) == "/out-of-town/photos"
    assert name_collection(replace(JOB, collection="s3://bucket/photos")) == "s3://bucket/photos"


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    open_console().print("word " * 100)
    assert capsys.readouterr().out.count("\n") == 1
