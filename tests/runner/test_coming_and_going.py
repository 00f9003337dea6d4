"""Workers that join and leave while a job runs, and workers that cannot do the work."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, Event

import pipeline
from pipeline.domain import Progress, Recipe
from pipeline.job import ConnectCluster
from pipeline.runner.cluster import open_client
from pipeline.runner.driver import Driver
from pipeline.runner.images import Carried, Equipment
from pipeline.runner.ledger import Ledger
from pipeline.runner.starting import WORKER_ENVIRONMENT
from pipeline.sources import open_collection
from pipeline.state import connect
from tests.fixtures.cluster import DaskCommands
from tests.runner.test_sandbox import is_sandboxed

SMALL = Recipe(max_width=100, max_height=100, enhance=None)
ANOTHER_VERSION = 'import pipeline.version\n\npipeline.version.__version__ = "0.0.9"\n'


class WaitingEquipment(Equipment):
    """Says that it has an image in its hands, and waits until the test lets it go on."""

    def resize(self, carried: Carried) -> Carried:
        # What a worker that was killed had in its hands is made in a sandbox, which is no part of the cluster.
        if not is_sandboxed():
            Event("held").set()
            Event("go").wait()
        return super().resize(carried)


class Running:
    """A job that a thread drives on a scheduler of Dask's own commands."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.thread = threading.Thread(target=driver.run, daemon=True)
        self.thread.start()

    def wait(self) -> Progress:
        self.thread.join(120)
        assert not self.thread.is_alive()
        return self.driver.latest


def on(commands: DaskCommands) -> ConnectCluster:
    return lambda: open_client(commands.scheduler_file, timeout_s=30)


@contextlib.contextmanager
def running(connect_cluster: ConnectCluster, photographs: Path, out: Path, valkey_url: str) -> Iterator[Running]:
    job = pipeline.Job("moving", str(photographs), str(out), SMALL)
    with connect(valkey_url, out) as store:
        before = store.create(job)
        yield Running(
            Driver(
                job,
                open_collection(job.collection),
                store.acquire(job),
                before,
                connect_cluster,
                equipment_type=WaitingEquipment,
            )
        )


def assert_whole(out: Path) -> None:
    """Nothing is lost and nothing doubled, in the ledger or in the destination."""
    rows = Ledger(str(out), "moving").read().to_pylist()
    assert len(rows) == 40
    assert {row["key"] for row in rows if row["status"] == "stored"} == {
        str(path.relative_to(out).with_suffix("")) for path in out.rglob("*.jpg")
    }
    assert len(list(out.rglob("*.jpg"))) == 40
    files = {path.suffix for path in out.rglob("*") if path.is_file() and "_ledger" not in path.parts}
    assert files == {".jpg"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_of_workers_that_come_and_go_nothing_is_lost_or_doubled(
    number: signal.Signals, dask_commands: DaskCommands, photographs: Path, tmp_path: Path, valkey_url: str
) -> None:
    first = dask_commands.add_worker()
    out = tmp_path / "out"
    with (
        dask_commands.connect(1) as client,
        running(on(dask_commands), photographs, out, valkey_url) as job,
    ):
        (leaving,) = client.nthreads()
        assert Event("held", client).wait(60)
        dask_commands.add_worker()
        client.wait_for_workers(2, timeout=60)
        # The first one has images in its hands.
        first.send_signal(number)
        if number == signal.SIGTERM:
            Event("go", client).set()
        first.wait(100)
        Event("go", client).set()
        progress = job.wait()
        assert leaving not in client.nthreads()
    assert (progress.status, progress.stored, progress.failed) == ("completed", 40, 0)
    assert_whole(out)


@pytest.mark.slow
def test_a_worker_of_another_version_is_refused_before_work_begins(
    dask_commands: DaskCommands, photographs: Path, tmp_path: Path, valkey_url: str
) -> None:
    (tmp_path / "another_version.py").write_text(ANOTHER_VERSION)
    dask_commands.add_worker()
    dask_commands.add_worker("--preload", "another_version.py")
    dask_commands.connect(2).close()
    with running(on(dask_commands), photographs, tmp_path / "out", valkey_url) as job:
        progress = job.wait()
    assert (progress.status, progress.stored) == ("failed", 0)
    assert f"has image-pipeline 0.0.9, this is {pipeline.__version__}; install the same" in progress.error
    assert progress.error.startswith("worker tcp://127.0.0.1:")


@pytest.mark.slow
def test_a_worker_of_another_version_that_joins_later_is_sent_away(
    dask_commands: DaskCommands,
    photographs: Path,
    tmp_path: Path,
    valkey_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "pipeline")
    (tmp_path / "another_version.py").write_text(ANOTHER_VERSION)
    dask_commands.add_worker()
    with (
        dask_commands.connect(1) as client,
        running(on(dask_commands), photographs, tmp_path / "out", valkey_url) as job,
    ):
        assert Event("held", client).wait(60)
        stranger = dask_commands.add_worker("--preload", "another_version.py")
        # It ends because the driver has sent it away.
        stranger.wait(100)
        assert len(client.nthreads()) == 1
        Event("go", client).set()
        progress = job.wait()
    assert (progress.status, progress.stored, progress.failed) == ("completed", 40, 0)
    assert_whole(tmp_path / "out")
    assert "goes on without a worker: worker tcp://127.0.0.1:" in caplog.text


@pytest.mark.slow
def test_a_worker_with_another_model_is_refused(
    dask_commands: DaskCommands, photographs: Path, tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)
    # As if its installation had another file of that name.
    (tmp_path / "sharpen.keras").write_bytes(b"another one")
    (tmp_path / "another_model.py").write_text(
        "import dataclasses\n\nfrom pipeline.catalogue import cards\n\n"
        "cards._SHIPPED = [dataclasses.replace(card, url=f'{card.name}.keras') for card in cards._SHIPPED]\n"
    )
    dask_commands.add_worker("--preload", "another_model.py")
    dask_commands.connect(1).close()
    recipe = Recipe(max_width=100, max_height=100, enhance="sharpen")
    job = pipeline.run(photographs, tmp_path / "out", recipe, cluster=dask_commands.scheduler_file)
    progress = job.wait()
    assert progress.status == "failed"
    assert "cannot use the model: cannot load model 'sharpen': its file's SHA-256 is" in progress.error
    assert progress.error.startswith("worker tcp://127.0.0.1:")


@pytest.mark.slow
def test_a_cluster_that_is_named_grows_with_the_work_and_ends_with_it(
    photographs: Path, tmp_path: Path, valkey_url: str
) -> None:
    settings = {
        "class": "distributed.LocalCluster",
        "minimum": 1,
        "maximum": 2,
        "arguments": {"n_workers": 0, "threads_per_worker": 1, "dashboard_address": ":0"},
    }
    out = tmp_path / "out"
    with open_client(settings) as client:
        address = client.scheduler.address
        with running(lambda: contextlib.nullcontext(client), photographs, out, valkey_url) as job:
            # Nobody asks for a second one but the work that waits.
            client.wait_for_workers(2, timeout=100)
            for environment in client.run(lambda: dict(os.environ)).values():
                assert WORKER_ENVIRONMENT.items() <= environment.items()
            Event("go", client).set()
            progress = job.wait()
    assert (progress.status, progress.stored, progress.failed) == ("completed", 40, 0)
    assert_whole(out)
    with pytest.raises(OSError, match="Timed out"):
        Client(address, timeout=0.5, set_as_default=False)
