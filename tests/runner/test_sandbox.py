"""Images that crash, hang or eat memory: each is found out, and costs at most one worker."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Client

from pipeline.domain import FetchPolicy, ImageLimits, Item, Job, Progress, Recipe
from pipeline.runner.cluster import open_client
from pipeline.runner.driver import Driver
from pipeline.runner.images import Carried, Equipment, Trial
from pipeline.runner.ledger import Ledger
from pipeline.runner.sandbox import Sandbox
from pipeline.runner.sharded import ShardEquipment
from pipeline.runner.watch import EXIT_CODE, StepWatch
from pipeline.sources import open_collection
from pipeline.stages.store import Ready
from pipeline.state import JobStore, connect
from tests.fixtures.cluster import DaskCommands

SMALL = Recipe(max_width=100, max_height=100, enhance=None)
LIMITS = ImageLimits(timeout_s=3.0, memory_mib=256)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    os._exit(3)


def hang() -> None:
    threading.Event().wait()


def hang_with_the_lock() -> None:
    """As C code that never lets another Python thread run."""
    ctypes.PyDLL(None).sleep(1000)


def eat_memory() -> None:
    eaten = []
    while True:
        eaten.append(bytearray(b"x" * 2**24))


def crash_or_eat_memory() -> None:
    """A worker would take all that the machine has."""
    (eat_memory if is_sandboxed() else crash)()


def is_sandboxed() -> bool:
    return Path(sys.argv[0]).name == "child.py"


def raise_oddly() -> None:
    raise SystemError("error return without exception set")


# By the end of an image's key, what it does where it is decoded.
HARM_BY_END: dict[str, Callable[[], None]] = {
    "03": crash,
    "07": leave,
    "11": hang,
    "13": hang_with_the_lock,
    "17": crash_or_eat_memory,
}


def do_harm(harm_by_end: dict[str, Callable[[], None]], carried: Carried, traces: Path) -> None:
    for end, harm in harm_by_end.items():
        if carried.item.key.endswith(end):
            trace = traces / f"{end}-{'sandbox' if is_sandboxed() else 'worker'}-{time.monotonic_ns()}"
            trace.touch()
            harm()


class HarmfulEquipment(Equipment):
    def resize(self, carried: Carried) -> Carried:
        with Trial("resize", carried.item) as trial:
            do_harm(HARM_BY_END, carried, Path(self.job.destination) / "traces")
        return trial.conclude(carried, None) if trial.failure else super().resize(carried)


class DeadlyShardEquipment(ShardEquipment):
    def resize(self, carried: Carried) -> Carried:
        do_harm({"07": crash}, carried, Path(self.job.destination) / "traces")
        return super().resize(carried)


class DeadlyToEncode(Equipment):
    def encode(self, carried: Carried) -> Carried:
        print("a library says something")  # noqa: T201
        with Trial("store", carried.item) as trial:
            do_harm(HARM_BY_END | {"19": raise_oddly}, carried, Path(self.job.destination))
        return trial.conclude(carried, None) if trial.failure else super().encode(carried)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    job = Job("1", "x", str(tmp_path), SMALL, limits=LIMITS)
    made = Sandbox(DeadlyToEncode(job), (DeadlyToEncode, job))
    yield made
    made.close()


@pytest.fixture
def picture(photographs: Path) -> bytes:
    return next(photographs.rglob("*.jpg")).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "error", "reason"),
    [
        ("03", "WorkerLostError", "SIGSEGV"),
        ("07", "WorkerLostError", "exit code 3"),
        ("11", "TooSlowError", "more than 3 s"),
        ("13", "TooSlowError", "more than 3 s"),
        ("17", "TooHeavyError", "not enough memory"),
        ("19", "SystemError", "error return"),
    ],
)
def test_what_an_image_does_in_a_sandbox_is_told_and_the_next_one_is_made(
    sandbox: Sandbox, picture: bytes, end: str, error: str, reason: str
) -> None:
    made = sandbox.make(Carried(Item(end, "https://u:p@h/cat.jpg?sig=s3cr3t"), picture))
    assert made.failure is not None
    assert (made.failure.stage, made.failure.error) == ("store", error)
    assert reason in made.failure.message
    assert "s3cr3t" not in made.failure.message
    good = sandbox.make(Carried(Item("good", "good.jpg"), picture))
    assert isinstance(good.payload, Ready)
    assert good.payload.data.startswith(b"\xff\xd8")


class EndedFromOutside(Equipment):
    """Its process is ended as the kernel would, for an image or for want of memory elsewhere."""

    def encode(self, carried: Carried) -> Carried:
        trace = Path(self.job.destination) / carried.item.key
        if carried.item.key == "always" or not trace.exists():
            trace.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(carried)


@pytest.mark.slow
def test_an_image_is_blamed_only_if_its_sandbox_is_killed_twice(tmp_path: Path, picture: bytes) -> None:
    job = Job("1", "x", str(tmp_path), SMALL, limits=LIMITS)
    sandbox = Sandbox(EndedFromOutside(job), (EndedFromOutside, job))
    try:
        once = sandbox.make(Carried(Item("once", "a.jpg"), picture))
        always = sandbox.make(Carried(Item("always", "b.jpg"), picture))
    finally:
        sandbox.close()
    assert isinstance(once.payload, Ready)
    assert always.failure is not None
    assert (always.failure.error, "SIGKILL" in always.failure.message) == ("WorkerLostError", True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process may write to")
def test_an_image_that_does_not_even_fit_into_the_sandbox_fails_alone(tmp_path: Path, picture: bytes) -> None:
    policy = FetchPolicy(max_bytes=1)
    job = Job("1", "x", str(tmp_path), SMALL, policy, limits=ImageLimits(memory_mib=16))
    sandbox = Sandbox(Equipment(job), (Equipment, job))
    try:
        large = sandbox.make(Carried(Item("large", "a.jpg"), picture + bytes(150_000_000)))
        good = sandbox.make(Carried(Item("good", "b.jpg"), picture))
    finally:
        sandbox.close()
    assert large.failure is not None
    assert large.failure.error == "TooHeavyError"
    assert isinstance(good.payload, Ready)


@pytest.mark.slow
def test_a_sandbox_imports_nothing_from_where_it_happens_to_be(
    tmp_path: Path, sandbox: Sandbox, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of images may be a stranger's, with a package of our name in it."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("import os; os._exit(1)")
    monkeypatch.chdir(tmp_path)
    assert isinstance(sandbox.make(Carried(Item("good", "good.jpg"), picture)).payload, Ready)


class SlowEquipment(Equipment):
    def resize(self, carried: Carried) -> Carried:
        time.sleep(1.5)
        return super().resize(carried)


@pytest.mark.slow
def test_a_worker_in_the_user_s_own_process_is_never_ended(
    photographs: Path, tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    (source / "a.jpg").write_bytes(next(photographs.rglob("*.jpg")).read_bytes())
    job = Job("own", str(source), str(tmp_path / "out"), SMALL, limits=ImageLimits(timeout_s=0.1))
    with (
        Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client,
        connect(valkey_url, tmp_path) as store,
    ):
        items, before = open_collection(job.collection), store.create(job)
        progress = drive(store, job, items, before, lambda: contextlib.nullcontext(client), SlowEquipment)
    assert (progress.status, progress.stored) == ("completed", 1)


@pytest.mark.slow
def test_a_sandbox_that_somebody_ends_blames_no_image(sandbox: Sandbox, picture: bytes) -> None:
    for number in range(3):
        made = sandbox.make(Carried(Item(f"good-{number}", "good.jpg"), picture))
        assert isinstance(made.payload, Ready)
        assert sandbox._child is not None
        sandbox._child._process.kill()
        sandbox._child._process.wait()


def run(job: Job, valkey_url: str, kind: type[Equipment], redo: str = "") -> Progress:
    (Path(job.destination) / "traces").mkdir(parents=True, exist_ok=True)
    with connect(valkey_url, Path(job.destination)) as store:
        before = store.progress(job.id) if redo else store.create(job)
        items = Ledger(job.destination, job.id).failed_items() if redo else open_collection(job.collection)
        if redo:
            Ledger(job.destination, job.id).forget([item.key for item in items])
        return drive(store, job, items, before, lambda: open_client(None, workers=2), kind)


def drive(store: JobStore, job: Job, items, before: Progress, connect_cluster, kind) -> Progress:
    Driver(job, items, store.acquire(job), before, connect_cluster, equipment_type=kind).run()
    return store.progress(job.id)


def deaths(job: Job) -> Counter[str]:
    """How often each harmful image was met, in a worker and in a sandbox."""
    names = (path.name for path in (Path(job.destination) / "traces").iterdir())
    return Counter(name.rpartition("-")[0] for name in names)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_harmful_images_cost_one_worker_each_and_nothing_else(
    photographs: Path, tmp_path: Path, valkey_url: str
) -> None:
    """Not even when the failed ones are tried again: what they did is remembered."""
    job = Job("harm", str(photographs), str(tmp_path / "out"), SMALL, limits=LIMITS)
    progress = run(job, valkey_url, HarmfulEquipment)
    assert (progress.status, progress.stored, progress.failed) == ("completed", 35, 5)
    rows = Ledger(job.destination, job.id).read().to_pylist()
    assert len(rows) == 40
    error_by_end = {row["key"][-2:]: row["error"] for row in rows if row["status"] == "failed"}
    assert error_by_end == {
        "03": "WorkerLostError",
        "07": "WorkerLostError",
        "11": "TooSlowError",
        "13": "TooSlowError",
        "17": "TooHeavyError",
    }
    first = deaths(job)
    # An image that was beside another one when that lost their worker may never have met one.
    assert all(first[f"{end}-worker"] <= 1 for end in HARM_BY_END)
    assert all(first[f"{end}-sandbox"] == 1 for end in HARM_BY_END)
    again = run(job, valkey_url, HarmfulEquipment, redo="completed")
    assert (again.stored, again.failed) == (35, 5)
    assert {name: count for name, count in deaths(job).items() if "worker" in name} == {
        name: count for name, count in first.items() if "worker" in name
    }


@pytest.mark.slow
def test_on_a_scheduler_of_others_an_image_costs_one_worker_too(
    photographs: Path, tmp_path: Path, valkey_url: str, dask_commands: DaskCommands
) -> None:
    """Dask would run its task on four workers, one after the other."""
    for _ in range(4):
        dask_commands.add_worker()
    dask_commands.connect(4).close()
    job = Job("theirs", str(photographs), str(tmp_path / "out"), SMALL, output="webdataset")
    (tmp_path / "out" / "traces").mkdir(parents=True)
    with connect(valkey_url, tmp_path) as store:
        items, before = open_collection(job.collection), store.create(job)
        progress = drive(
            store, job, items, before, lambda: open_client(dask_commands.scheduler_file), DeadlyShardEquipment
        )
    assert (progress.status, progress.stored, progress.failed) == ("completed", 39, 1)
    assert deaths(job) == {"07-worker": 1, "07-sandbox": 1}
    assert sum(process.poll() is None for process in dask_commands.processes) == 1 + 3


@pytest.mark.slow
def test_a_shard_holds_all_but_the_image_that_kills(photographs: Path, tmp_path: Path, valkey_url: str) -> None:
    job = Job("shard", str(photographs), str(tmp_path / "out"), SMALL, output="webdataset")
    progress = run(job, valkey_url, DeadlyShardEquipment)
    assert (progress.status, progress.stored, progress.failed) == ("completed", 39, 1)
    assert deaths(job) == {"07-worker": 1, "07-sandbox": 1}
    rows = Ledger(job.destination, job.id).read().to_pylist()
    assert sum(row["output"].startswith("tar://") for row in rows) == 39


@pytest.mark.slow
def test_duplicates_of_an_image_that_kills_fail_with_it(photographs: Path, tmp_path: Path, valkey_url: str) -> None:
    """With `deduplicate`, the sandbox leaves duplicates out as the stages do."""
    source = tmp_path / "photos"
    source.mkdir()
    found = sorted(photographs.rglob("*.jpg"))
    # Either of the first two may be the original.
    for name, original in (("1-07", found[0]), ("2-07", found[0]), ("b", found[1]), ("c", found[1])):
        (source / f"{name}.jpg").write_bytes(original.read_bytes())
    job = Job("twice", str(source), str(tmp_path / "out"), SMALL, deduplicate=True)
    progress = run(job, valkey_url, HarmfulEquipment)
    assert (progress.status, progress.stored, progress.skipped, progress.failed) == ("completed", 1, 1, 2)


@pytest.mark.parametrize("harm", [hang, hang_with_the_lock])
def test_a_watched_process_ends_when_a_step_takes_too_long(harm: Callable[[], None]) -> None:
    source = (
        "import faulthandler, pipeline.runner.watch as watch; watch._LOCK_PATIENCE_S = 0.5\n"
        f"from tests.runner.test_sandbox import {harm.__name__} as harm\n"
        "watching = watch.StepWatch()\n"
        "for _ in range(1000):\n"
        "    with watching.step(2.0):\n"
        "        pass\n"
        "with watching.step(1.0):\n"
        "    harm()\n"
    )
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=60)
    assert ended.returncode in {EXIT_CODE, 1}
    assert ended.stderr == b""


def test_a_process_in_which_nothing_is_made_is_not_watched() -> None:
    """Others' tasks may keep the lock as they like."""
    source = (
        "import time, ctypes, pipeline.runner.watch as watch; watch._LOCK_PATIENCE_S = 0.2\n"
        "watching = watch.StepWatch()\n"
        "for _ in range(2):\n"
        "    with watching.step(0.5):\n"
        "        pass\n"
        "    while watching._is_needed.is_set():\n"
        "        time.sleep(0.1)\n"
        "    ctypes.PyDLL(None).sleep(2)\n"
    )
    assert subprocess.run([sys.executable, "-c", source], timeout=60, check=False).returncode == 0


def test_a_watch_lets_steps_pass_that_keep_their_time() -> None:
    watch = StepWatch()
    for _ in range(3):
        with watch.step(30.0), watch.step(30.0):
            time.sleep(0.3)
    assert not watch._deadline_by_step
