"""Workers that are killed one after the other, and all at once."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from distributed import Client

import pipeline
from pipeline.domain import Recipe
from pipeline.runner.cluster import open_client
from tests.chaos.oracle import Undisturbed, witnessed
from tests.fixtures.photographs import make_photograph

PICTURES, IMAGES = 30, 3000
KILL_EVERY_S = 5.0
KILLS = 10

# It takes a worker some thirty milliseconds, so that kills meet work.
RECIPE = Recipe(max_width=512, max_height=512, enhance=None, format="webp")


def link_images(folder: Path) -> Path:
    """Make many images of few pictures, which cost no disk."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(PICTURES):
        (pictures / f"{number:04}.jpg").write_bytes(make_photograph(number, 800, 600))
    many = folder / "many"
    many.mkdir()
    for number in range(IMAGES):
        (many / f"{number:04}.jpg").hardlink_to(pictures / f"{number % PICTURES:04}.jpg")
    return many


def undisturbed_by(few: Undisturbed, many: Path) -> Undisturbed:
    """Return what is to become of the images, from what became of the pictures that they are made of."""
    rows = {}
    for number in range(IMAGES):
        row = few.rows[f"{number % PICTURES:04}"]
        rows[f"{number:04}"] = {**row, "key": f"{number:04}", "url": str(many / f"{number:04}.jpg")}
    return Undisturbed(rows)


def kill_workers(client: Client, chance: random.Random, *, all_of_them: bool) -> int:
    """Kill a worker, or all; return how many."""
    pids = sorted(worker["pid"] for worker in client.run(lambda: {"pid": os.getpid()}, on_error="ignore").values())
    if pids and not all_of_them:
        pids = [chance.choice(pids)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(500)
def test_a_worker_that_is_killed_every_five_seconds_costs_and_doubles_and_blames_no_image(
    tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then all are killed at once. No image fails: none has killed its worker."""
    monkeypatch.setenv("REDIS_URL", valkey_url)
    many = link_images(tmp_path)
    chance = random.Random(5)
    killed: list[int] = []
    with open_client(None, workers=2) as client:
        calm = pipeline.run(tmp_path / "pictures", tmp_path / "calm", RECIPE, client=client)
        assert calm.wait().stored == PICTURES
        undisturbed = undisturbed_by(Undisturbed.of(calm.job, calm._store), many)
        with witnessed(tmp_path / "out", undisturbed):
            job = pipeline.run(many, tmp_path / "out", RECIPE, client=client)
            done = 0
            # On a machine that has much else to do, a worker that never lives to do anything would say nothing.
            while len(killed) < KILLS and not (latest := job.wait(KILL_EVERY_S)).is_finished:
                if latest.done > done:
                    done = latest.done
                    killed.append(kill_workers(client, chance, all_of_them=len(killed) % 4 == 3))
            job.wait()
        assert sum(map(bool, killed)) >= KILLS
        assert 2 in killed
        undisturbed.require_same(job.job, job._store, but=["duplicate_of", "fingerprint"])
