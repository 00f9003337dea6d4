"""Wall clocks that jump by an hour under a run."""

from __future__ import annotations

import datetime
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.domain import Progress
from pipeline.state import JobStore
from tests.chaos.conftest import Scenes
from tests.chaos.lives import end_of, images_of
from tests.chaos.oracle import witnessed
from tests.interfaces.commands import wait_until

HOUR_S = 3600.0


class Jumps:
    """An offset that is another one every half second: none, an hour ahead, an hour behind."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def offset_s(self) -> float:
        return (0.0, HOUR_S, -HOUR_S)[int(2 * (time.monotonic() - self._began_s)) % 3]


@dataclass(frozen=True)
class JumpingClock:
    """Gives a driver such a clock."""

    def __call__(self) -> None:
        from pipeline.state import script

        jumps, true_time = Jumps(), time.time

        class JumpingDatetime(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> JumpingDatetime:
                return cls.fromtimestamp(true_time() + jumps.offset_s(), tz)

        def now_s() -> float:
            return true_time() + jumps.offset_s()

        # Everywhere: of two clocks in one process, Dask would wait for the other one.
        for module in list(sys.modules.values()):
            for name, value in list(vars(module).items()):
                if value is true_time:
                    setattr(module, name, now_s)
        script.datetime = JumpingDatetime  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_clock_that_jumps_by_an_hour_changes_nothing(scenes: Scenes, tmp_path: Path) -> None:
    """No lease is lost, no state goes back, no speed and no time that is left is absurd."""
    scene = scenes.make(200, delay_s=0.3)
    plan = scene.plan(tmp_path / "out", job_id="clocks")
    heard: list[Progress] = []
    driver = plan.begin(JumpingClock())
    with witnessed(plan.out, scene.undisturbed):
        wait_until(lambda: images_of(scene.store, plan), "a stored image", 60)
        following = threading.Thread(target=lambda: heard.extend(scene.store.updates(plan.job_id)))
        following.start()
        assert end_of(driver) == 0
        following.join(60)
    scene.require_same(plan)
    assert {progress.status for progress in heard} <= {"queued", "processing", "completed"}
    assert all(early.version < late.version for early, late in itertools.pairwise(heard))
    assert all(early.done <= late.done for early, late in itertools.pairwise(heard))
    assert all(0 <= progress.seconds < 300 for progress in heard)
    assert all(0 <= progress.images_per_second < 10_000 for progress in heard)
    assert all(progress.eta_seconds is None or 0 <= progress.eta_seconds < 1000 for progress in heard)
    # While it ran, somebody's clock was an hour ahead of somebody's.
    assert heard[-1].completed_at


@pytest.fixture
def jumped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    offset = [0.0]
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + offset[0])
    return offset


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_queue_workers_live_by_the_clock_of_redis(chaos_store: JobStore, jumped: list[float], jump_s: float) -> None:
    """One that lives is not taken for dead when a clock goes forward, nor a dead one for alive when it goes back."""
    queue = chaos_store.queue
    queue.announce_worker("dead", {}, ttl_s=0.01)
    queue.announce_worker("alive", {}, ttl_s=60.0)
    while "dead" in queue.workers():
        pass
    queue.announce_worker("dead", {}, ttl_s=0.01)
    jumped[0] = jump_s
    while "dead" in (workers := queue.workers()):
        pass
    assert "alive" in workers
