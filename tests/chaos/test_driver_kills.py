"""Drivers that are killed: at random moments, and at each of their writes."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.domain import Output
from tests.chaos.conftest import Scenes
from tests.chaos.lives import DieAtNewWrite, end_of
from tests.chaos.oracle import witnessed

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(400)]


# Of the writes, those that must be among them, lest the drivers died at nothing that matters.
WRITES: Mapping[Output, set[str]] = {
    "files": {"before create 1", "after acquire 1", "before publish 1", "after publish 2", "os.link part 1"},
    "webdataset": {"os.mkdir _shards 1", "os.link .tar 1", "os.link part 1", "os.remove .piece 1"},
}


@pytest.mark.parametrize(("output", "enough"), [("files", 50), ("webdataset", 15)])
def test_a_driver_that_is_killed_at_random_moments_loses_and_doubles_nothing(
    scenes: Scenes, tmp_path: Path, output: Output, enough: int
) -> None:
    """From its start to its end; the job that it leaves is gone on with by the next one, until it is complete."""
    scene = scenes.make(400, delay_s=0.1)
    chance = random.Random(7)
    kills = jobs = 0
    while kills < enough:
        jobs += 1
        plan = scene.plan(tmp_path / str(jobs), job_id=f"random-{output}-{jobs}", output=output)
        with witnessed(plan.out, scene.undisturbed):
            while True:
                driver = plan.begin()
                driver.join(chance.uniform(0.05, 1.5))
                driver.kill()
                if end_of(driver) == 0:
                    break
                assert driver.exitcode == -signal.SIGKILL
                kills += 1
        scene.require_same(plan)


@pytest.mark.parametrize("output", ["files", "webdataset"])
def test_a_driver_that_is_killed_at_each_of_its_writes_loses_and_doubles_nothing(
    scenes: Scenes, tmp_path: Path, output: Output
) -> None:
    """Each dies at the first write at which none has died before; the next one goes on with the job."""
    scene = scenes.make(60, delay_s=0.02)
    died_at: set[str] = set()
    lives = 0
    # When a driver has done a whole job, there was no write left at which none had died.
    while lives != 1:
        name = f"each-{output}-{len(died_at)}"
        plan = scene.plan(tmp_path / name, job_id=name, output=output, flush_s=0.1)
        lives = 0
        with witnessed(plan.out, scene.undisturbed):
            while True:
                lives += 1
                last_words = tmp_path / "last_words"
                code = end_of(plan.begin(DieAtNewWrite(plan.out, frozenset(died_at), last_words)))
                if code == 0:
                    break
                assert code == -signal.SIGKILL
                died_at.add(last_words.read_text())
        scene.require_same(plan)
    assert died_at >= WRITES[output]
