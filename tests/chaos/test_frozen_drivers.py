"""Drivers that are stopped for longer than their lease, and go on when others have done their work."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pipeline.domain import Output
from tests.chaos.conftest import Scenes
from tests.chaos.lives import Plan, end_of, images_of
from tests.chaos.oracle import witnessed
from tests.interfaces.commands import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

OUTPUTS: list[Output] = ["files", "webdataset"]


def test_a_driver_that_was_frozen_until_another_took_over_writes_nothing_more(scenes: Scenes, tmp_path: Path) -> None:
    """It ends as the other one has; ledger, results and state are the other one's.

    Four at once: some have Outcomes at hand, some have just begun.
    """
    scene = scenes.make(200, delay_s=0.5)
    plans = [
        scene.plan(
            tmp_path / f"{output}-{flush_s}", job_id=f"frozen-{output}-{flush_s}", output=output, flush_s=flush_s
        )
        for output in OUTPUTS
        for flush_s in (60.0, 0.25)
    ]
    drivers = [plan.begin() for plan in plans]
    for plan, driver in zip(plans, drivers, strict=True):
        wait_until(lambda plan=plan: images_of(scene.store, plan) > 1 / plan.flush_s, "an Outcome", 60)
        os.kill(driver.pid, signal.SIGSTOP)
    for plan in plans:
        wait_until(lambda plan=plan: scene.store.progress(plan.job_id).status == "stalled", "the end of a lease")
    scene.site.serve(delay_s=0.0)
    for plan, driver in zip(plans, drivers, strict=True):
        with witnessed(plan.out, scene.undisturbed):
            plan.complete()
            scene.require_same(plan)
            before = everything_in(plan)
            os.kill(driver.pid, signal.SIGCONT)
            # What it waits for is the job's end, whoever has brought that about.
            assert end_of(driver) == 0
        assert everything_in(plan) == before
        scene.require_same(plan)


def everything_in(plan: Plan) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in plan.out.rglob("*") if path.is_file()}
