"""Dask's own report of a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from distributed import Client

import pipeline
from pipeline.domain import Recipe
from pipeline.errors import DestinationError

SMALL = Recipe(max_width=100, max_height=100, enhance=None)


@pytest.fixture(autouse=True)
def redis_url(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the state of these tests on their own server."""
    monkeypatch.setenv("REDIS_URL", valkey_url)


def test_dasks_report_names_the_stages_and_needs_no_network(photographs: Path, tmp_path: Path, client: Client) -> None:
    report = tmp_path / "dask.html"
    assert pipeline.run(photographs, tmp_path / "out", SMALL, client=client, dask_report=report).wait().stored == 40
    page = report.read_text("utf-8")
    assert "fetch" in page
    assert not re.search(r"""<script[^>]*src=["']http""", page)


def test_a_report_that_cannot_be_written_is_said_before_the_run(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="must be a file in a folder that exists"):
        pipeline.run(photographs, tmp_path / "out", SMALL, dask_report=tmp_path / "absent" / "dask.html")
    assert pipeline.jobs() == []


def test_a_report_that_fails_at_the_end_costs_no_image(photographs: Path, tmp_path: Path, client: Client) -> None:
    report = tmp_path / "dask.html"
    job = pipeline.run(photographs, tmp_path / "out", SMALL, client=client, dask_report=report)
    # What was checked at the start has changed since.
    report.mkdir()
    assert (job.wait().status, job.progress.stored) == ("completed", 40)
