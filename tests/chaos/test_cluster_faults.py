"""A scheduler that dies or hangs, and a network that is cut between it and the driver."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.chaos.conftest import Scene, Scenes
from tests.chaos.lives import Plan, end_of, images_of
from tests.chaos.oracle import witnessed
from tests.fixtures.cluster import DaskProcesses
from tests.interfaces.commands import Pipeline, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Wire:
    """A TCP connection through this process, which can be cut.

    Attributes
    ----------
    address : str
    """

    def __init__(self, address: str) -> None:
        target = urlsplit(address)
        self._target = (target.hostname, target.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, for_good: bool) -> None:
        """End all connections; if for good, there are to be no others."""
        if for_good:
            self._listener.close()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._ends += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
    # The other direction is read by another thread, which closes that end.
    source.close()


@contextmanager
def wired(address: str) -> Iterator[Wire]:
    wire = Wire(address)
    yield wire
    wire.cut(for_good=True)


@dataclass(frozen=True)
class LoseNoTime:
    """Has a driver wait for less long for a scheduler."""

    patience_s: float

    def __call__(self) -> None:
        from pipeline.runner import cluster

        cluster.SILENCE_PATIENCE_S = self.patience_s  # type: ignore[misc]


def begun(scene: Scene, plan: Plan) -> None:
    """Wait until a job is in its middle."""
    wait_until(lambda: images_of(scene.store, plan) > 4, "stored images", 60)


def require_failed(scene: Scene, plan: Plan, reason: str) -> None:
    """The job has ended, says why, and that it can be resumed; what it has stored is in its ledger."""
    progress = scene.store.progress(plan.job_id)
    assert progress.status == "failed"
    assert reason in progress.error
    assert "resume" in progress.error
    assert 0 < progress.done < len(scene.undisturbed.rows)


def test_a_scheduler_that_dies_ends_the_run_with_a_word_and_another_cluster_goes_on(
    scenes: Scenes, tmp_path: Path, dask_processes: DaskProcesses
) -> None:
    """On the command line: exit code 3, one line that says what to do."""
    scene = scenes.make(200, delay_s=0.5)
    plan = scene.plan(tmp_path / "out", job_id="scheduler")
    command = Pipeline(tmp_path, {"REDIS_URL": scene.redis_url})
    recipe = ("--max-width", 64, "--max-height", 64, "--enhance", "none", "--retries", 0, "--allow-private")
    where = (plan.collection, plan.out, "--job-id", plan.job_id, "--cluster", dask_processes.address)
    with witnessed(plan.out, scene.undisturbed):
        with command.start("run", *where, *recipe) as running:
            begun(scene, plan)
            dask_processes.scheduler.kill()
            ended = running.end()
        assert ended.code == 3
        assert f"go on with pipeline resume {plan.job_id}" in ended.out
        require_failed(scene, plan, "the Dask scheduler is gone")
        scene.site.serve(delay_s=0.0)
        resumed = command("resume", plan.job_id, "--cluster", scene.scheduler, "--json")
        assert resumed.code == 1  # some images are broken
    scene.require_same(plan)


def test_a_network_that_is_cut_for_good_ends_the_run_with_a_word(scenes: Scenes, tmp_path: Path) -> None:
    scene = scenes.make(200, delay_s=0.5)
    with wired(scene.scheduler) as wire:
        plan = Plan(scene.site.manifest, tmp_path / "out", scene.redis_url, wire.address, "cut")
        with witnessed(plan.out, scene.undisturbed):
            driver = plan.begin()
            begun(scene, plan)
            wire.cut(for_good=True)
            assert end_of(driver) == 3
            require_failed(scene, plan, "the Dask scheduler is gone")
            scene.site.serve(delay_s=0.0)
            scene.plan(plan.out, job_id=plan.job_id).complete()
    scene.require_same(plan)


def test_a_network_that_is_cut_for_a_moment_costs_no_image(scenes: Scenes, tmp_path: Path) -> None:
    """Either the run goes on by itself, or it says that it can be resumed."""
    scene = scenes.make(200, delay_s=0.3)
    with wired(scene.scheduler) as wire:
        plan = Plan(scene.site.manifest, tmp_path / "out", scene.redis_url, wire.address, "blip")
        with witnessed(plan.out, scene.undisturbed):
            driver = plan.begin()
            begun(scene, plan)
            wire.cut(for_good=False)
            if end_of(driver) == 3:
                require_failed(scene, plan, "the Dask scheduler is gone")
                scene.plan(plan.out, job_id=plan.job_id).complete()
    scene.require_same(plan)


def test_a_scheduler_that_hangs_for_longer_than_a_lease_holds_the_run_and_no_more(
    scenes: Scenes, tmp_path: Path, dask_processes: DaskProcesses
) -> None:
    """The driver keeps its lease, and goes on by itself."""
    scene = scenes.make(200, delay_s=0.3)
    plan = Plan(scene.site.manifest, tmp_path / "out", scene.redis_url, dask_processes.address, "hung")
    with witnessed(plan.out, scene.undisturbed):
        driver = plan.begin()
        begun(scene, plan)
        os.kill(dask_processes.scheduler.pid, signal.SIGSTOP)
        held = threading.Event()
        statuses = set()
        for _ in range(12):
            held.wait(1.0)
            statuses.add(scene.store.progress(plan.job_id).status)
        os.kill(dask_processes.scheduler.pid, signal.SIGCONT)
        assert statuses == {"processing"}
        assert end_of(driver) == 0
    scene.require_same(plan)


def test_a_scheduler_that_hangs_for_good_ends_the_run_with_a_word(
    scenes: Scenes, tmp_path: Path, dask_processes: DaskProcesses
) -> None:
    scene = scenes.make(200, delay_s=0.3)
    plan = Plan(scene.site.manifest, tmp_path / "out", scene.redis_url, dask_processes.address, "dead")
    with witnessed(plan.out, scene.undisturbed):
        driver = plan.begin(LoseNoTime(2.0))
        begun(scene, plan)
        os.kill(dask_processes.scheduler.pid, signal.SIGSTOP)
        wait_until(lambda: scene.store.progress(plan.job_id).status == "failed", "the end of the run", 60)
        require_failed(scene, plan, "has not answered for 2 seconds")
        driver.kill()
        scene.site.serve(delay_s=0.0)
        scene.plan(plan.out, job_id=plan.job_id).complete()
    scene.require_same(plan)
