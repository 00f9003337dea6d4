"""Destinations that are full, read-only or removed in mid-run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.state import JobStore
from tests.chaos.conftest import Scene, Scenes
from tests.chaos.lives import Plan, end_of, images_of
from tests.chaos.oracle import witnessed
from tests.interfaces.commands import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Disk:
    """A disk of its own, in memory."""

    place: Path

    def remount(self, options: str) -> bool:
        """Change what the disk allows; whether that went well."""
        command = ["mount", "-o", f"remount,{options}", str(self.place)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextmanager
def mounted(place: Path) -> Iterator[Disk]:
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    try:
        ended = subprocess.run(mount, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if ended.returncode:
        pytest.skip(f"no disk can be mounted here: {ended.stderr.strip()}")
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@dataclass(frozen=True)
class LoseNoTime:
    """Has a driver wait for less long for a ledger that cannot be written."""

    patience_s: float

    def __call__(self) -> None:
        from pipeline.runner import buffer

        buffer.PATIENCE_S = self.patience_s  # type: ignore[misc]


@dataclass(frozen=True)
class Retry:
    """Has a driver run again what has failed and what is left."""

    plan: Plan

    def __call__(self) -> None:
        import os

        import pipeline

        os.environ["REDIS_URL"] = self.plan.redis_url
        handle = pipeline.attach(self.plan.job_id)
        handle.retry_failed(cluster=self.plan.scheduler)
        os._exit(0 if handle.wait().status == "completed" else 3)


def fill(disk: Disk) -> None:
    """Leave a disk no room."""
    with (disk.place / ".full").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def begun(store: JobStore, plan: Plan) -> None:
    """Wait until a job has Outcomes, some of them in the ledger."""
    wait_until(lambda: images_of(store, plan) > 4, "stored images", 60)
    wait_until(lambda: list(plan.out.rglob("*.parquet")), "a part of the ledger", 60)


def go_on(scene: Scene, plan: Plan) -> None:
    scene.site.serve(delay_s=0.0)
    assert end_of(plan.begin(Retry(plan))) == 0
    scene.require_same(plan)


@pytest.mark.parametrize(
    ("how", "reason"), [("full", "No space left on device"), ("read-only", "Read-only file system")]
)
def test_a_destination_that_takes_no_more_ends_the_run_with_a_word(
    scenes: Scenes, tmp_path: Path, how: str, reason: str
) -> None:
    """What was stored stays; when there is room, what failed and what is left is done."""
    scene = scenes.make(200, delay_s=0.3)
    with mounted(tmp_path / "out") as disk:
        plan = scene.plan(tmp_path / "out", job_id=f"disk-{how}")
        with witnessed(plan.out, scene.undisturbed):
            driver = plan.begin(LoseNoTime(1.0))
            begun(scene.store, plan)
            if how == "full":
                fill(disk)
            else:
                wait_until(lambda: disk.remount("ro"), "a moment at which nothing is open")
            assert end_of(driver) == 3
            progress = scene.store.progress(plan.job_id)
            assert progress.status == "failed"
            assert progress.error.startswith("cannot write")
            assert reason in progress.error
            disk.remount("rw")
            (disk.place / ".full").unlink(missing_ok=True)
            go_on(scene, plan)


def test_a_ledger_that_cannot_be_written_for_a_while_costs_nothing(scenes: Scenes, tmp_path: Path) -> None:
    """Images are stored meanwhile, and in the ledger when it can be written again."""
    scene = scenes.make(200, delay_s=0.3)
    with mounted(tmp_path / "out" / "_ledger") as disk:
        plan = scene.plan(tmp_path / "out", job_id="ledger")
        with witnessed(plan.out, scene.undisturbed):
            driver = plan.begin()
            begun(scene.store, plan)
            fill(disk)
            parts, images = len(list(plan.out.rglob("*.parquet"))), images_of(scene.store, plan)
            wait_until(lambda: images_of(scene.store, plan) > images + 30, "more images", 60)
            assert len(list(plan.out.rglob("*.parquet"))) == parts
            (disk.place / ".full").unlink()
            assert end_of(driver) == 0
        scene.require_same(plan)


def test_a_destination_that_is_removed_is_told_and_made_anew(scenes: Scenes, tmp_path: Path) -> None:
    """No job is called completed whose results are gone."""
    scene = scenes.make(200, delay_s=0.3)
    plan = scene.plan(tmp_path / "out", job_id="removed")
    driver = plan.begin()
    begun(scene.store, plan)
    # Just after a part was written: what comes between a look and a write, nobody notices.
    parts = set(plan.out.rglob("*.parquet"))
    wait_until(lambda: set(plan.out.rglob("*.parquet")) - parts, "another part", 60)
    gone = tmp_path / "gone"
    plan.out.rename(gone)
    shutil.rmtree(gone)
    assert end_of(driver) == 3
    progress = scene.store.progress(plan.job_id)
    assert progress.status == "failed"
    assert "were removed while the job ran: resume the job" in progress.error
    scene.site.serve(delay_s=0.0)
    plan.complete()
    scene.require_same(plan)
