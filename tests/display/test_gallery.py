"""Results as pictures, wherever they are."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pandas as pd
import pytest

from pipeline.display.gallery import make_gallery
from pipeline.display.job_list import JobList
from pipeline.domain import Item, Job, Outcome, Progress
from tests.fixtures.photographs import make_photograph
from tests.interfaces.ledgers import to_ledger


def stored(number: int, output: str) -> Outcome:
    key = f"<b>{number}</b>"
    return Outcome(Item(key, "/in.jpg"), "stored", output=output, width=320, height=240, bytes_out=1000)


@pytest.fixture(params=["local", "memory"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> pd.DataFrame:
    root = str(tmp_path) if request.param == "local" else "memory://gallery"
    outputs = [f"{root}/{number}.jpg" for number in range(10)]
    for number, output in enumerate(outputs):
        with fsspec.open(output, "wb") as file:
            file.write(make_photograph(number))
    return to_ledger([stored(number, output) for number, output in enumerate(outputs)])


def test_a_gallery_shows_results_spread_over_all(ledger: pd.DataFrame) -> None:
    gallery = make_gallery(ledger, 5)
    assert [tile.output[-5] for tile in gallery.tiles] == ["0", "2", "4", "6", "8"]
    assert gallery.stored == 10
    assert gallery._repr_html_().count("data:image/jpeg") == 5
    assert repr(gallery) == "<Gallery of 5 of 10 results>"


def test_a_key_is_no_markup(ledger: pd.DataFrame) -> None:
    html = make_gallery(ledger, 5)._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;0&lt;/b&gt;" in html


def test_results_that_are_gone_are_left_out(tmp_path: Path) -> None:
    outcomes = to_ledger([stored(1, str(tmp_path / "gone.jpg"))])
    gallery = make_gallery(outcomes, 5)
    assert gallery.tiles == ()
    assert "no results to show" in gallery._repr_html_()


def test_a_list_of_jobs_is_a_list_and_a_table() -> None:
    job, progress = Job("nightly", "s3://bucket/in?token=secret", "/out"), Progress("nightly", "completed", 2, 1, 0, 1)
    jobs = JobList(["handle"], [(job, progress)])
    assert jobs == ["handle"]
    assert repr(jobs) == "nightly  completed: 2 of 2, 1 failed"
    assert "secret" not in jobs._repr_html_()
    assert 'class="number failed"' in jobs._repr_html_()


def test_an_empty_list_of_jobs_says_what_to_do() -> None:
    assert "pipeline.run(" in JobList([], [])._repr_html_()
