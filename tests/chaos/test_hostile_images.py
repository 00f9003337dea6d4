"""Thousands of broken, lying and crafted image files, and photographs among them."""

from __future__ import annotations

import zlib
from collections import Counter
from pathlib import Path

import pytest
from distributed import Client
from PIL import Image

import pipeline
from pipeline.domain import Recipe
from pipeline.errors import error_named
from pipeline.runner.cluster import open_client
from tests.chaos.mutants import mutants, seeds
from tests.fixtures.photographs import make_photograph
from tests.stages.pictures import HOSTILE

MUTANTS = 5000
PHOTOGRAPHS = 200
BOX = 64


def lost_workers(client: Client) -> int:
    events = client.get_events("all") if client.status == "running" else ()
    return sum(
        event["action"] == "remove-worker" for _, event in events if isinstance(event, dict) and "action" in event
    )


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.skipif(not HOSTILE.is_dir(), reason="needs the folder of hostile files beside the checkout")
def test_every_hostile_file_ends_as_one_outcome_and_every_photograph_is_stored(
    tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is stored or failed with its class, none of them twice; no worker is lost more often than once an image."""
    monkeypatch.setenv("REDIS_URL", valkey_url)
    source = tmp_path / "files"
    source.mkdir()
    whole = [*seeds(), *(path.read_bytes() for path in sorted(HOSTILE.iterdir()) if path.stat().st_size < 20_000)]
    files = {path.name: path for path in sorted(HOSTILE.iterdir()) if path.is_file()}
    for number, data in enumerate(mutants(MUTANTS, whole, seed=7)):
        path = files[f"mutant-{number}"] = source / f"mutant-{number:05}"
        path.write_bytes(data)
    for number in range(PHOTOGRAPHS):
        path = files[f"photograph-{number}"] = source / f"photograph-{number:03}.jpg"
        path.write_bytes(make_photograph(number, 80, 60))
    # The photographs among the others, not behind them.
    listed = sorted(map(str, files.values()), key=lambda place: zlib.crc32(place.encode()))
    recipe = Recipe(max_width=BOX, max_height=BOX, enhance=None)
    with open_client(None, workers=2) as client:
        job = pipeline.run(listed, tmp_path / "out", recipe, client=client)
        progress = job.wait(timeout=800)
        n_lost = lost_workers(client)
    outcomes = job.outcomes()
    assert (progress.status, progress.stored + progress.failed) == ("completed", len(listed))
    assert sorted(outcomes["url"]) == sorted(listed)
    stages = Counter(outcomes.loc[outcomes["status"] == "failed", "stage"])
    assert set(stages) <= {"resize", "store"}
    assert outcomes.loc[outcomes["status"] == "failed", ["error", "message"]].ne("").all(axis=None)
    known = set(outcomes["error"]) - {""}
    assert all(error_named(name) for name in known), known
    photographs = outcomes[outcomes["url"].str.contains("/photograph-")]
    assert photographs["status"].eq("stored").all()
    blamed = outcomes["error"].isin(["WorkerLostError", "TooSlowError"]).sum()
    assert n_lost <= blamed
    # What is stored is an image of the promised size, whatever the file was.
    for output in outcomes.loc[outcomes["status"] == "stored", "output"]:
        with Image.open(output) as image:
            image.load()
            assert max(image.size) <= BOX
