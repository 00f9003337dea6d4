"""Redis that is killed, held up, or refuses to write: the run goes on, and whoever follows it sees its end."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

import pipeline
from pipeline.domain import Job, Progress
from pipeline.errors import StateError
from pipeline.settings import Settings
from pipeline.state import JobStore, connect
from tests.chaos.conftest import Scene, Scenes
from tests.chaos.lives import Plan, end_of
from tests.chaos.oracle import witnessed
from tests.chaos.valkey import Valkey
from tests.fixtures.service import follow, serving
from tests.interfaces.commands import Pipeline, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RESTARTS = 10


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    folder = tmp_path / "valkey"
    folder.mkdir()
    with Valkey(folder) as valkey:
        yield valkey


def stored_files(plan: Plan) -> int:
    return sum(1 for _ in plan.out.glob("*.jpg"))


def require_same(scene: Scene, plan: Plan) -> None:
    with connect(plan.redis_url, Path("unused")) as store:
        scene.undisturbed.require_same(store.load_job(plan.job_id), store)


def wait_for_news(store: JobStore, plan: Plan) -> None:
    """Wait until the driver has published something more."""
    version = store.progress(plan.job_id).version
    wait_until(lambda: store.progress(plan.job_id).version > version, "something new of the job", 60)


def followed(updates: Iterator[Progress], heard: list[Progress]) -> threading.Thread:
    thread = threading.Thread(target=lambda: heard.extend(updates))
    thread.start()
    return thread


@pytest.mark.chaos
def test_redis_is_killed_ten_times_and_everybody_sees_the_right_end(
    scenes: Scenes, tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who follows the job in Python, over a WebSocket and on the command line; the last time it is down at the end."""
    scene = scenes.make(400, delay_s=0.7)
    plan = Plan(scene.site.manifest, tmp_path / "out", valkey.url, scene.scheduler)
    monkeypatch.setenv("REDIS_URL", valkey.url)
    in_python: list[Progress] = []
    over_socket: list[dict[str, object]] = []
    with ExitStack() as stack:
        store = stack.enter_context(connect(valkey.url, Path("unused")))
        stack.enter_context(witnessed(plan.out, scene.undisturbed))
        driver = plan.begin()
        wait_until(lambda: stored_files(plan), "a stored image", 60)
        service = stack.enter_context(serving(tmp_path / "service", valkey.url, "--no-work"))
        socket = stack.enter_context(service.socket())
        handle = pipeline.JobHandle(store.load_job(plan.job_id), store, Settings.from_environ())
        following = [followed(handle.updates(), in_python)]
        following.append(threading.Thread(target=lambda: over_socket.extend(follow(socket, plan.job_id))))
        following[-1].start()
        watching = stack.enter_context(
            Pipeline(tmp_path, {"REDIS_URL": valkey.url}).start("watch", plan.job_id, "--json")
        )
        # The command asks Redis before it follows: then it has to be there.
        with Redis.from_url(valkey.url) as redis:
            wait_until(lambda: redis.pubsub_numsub(f"job:{plan.job_id}")[0][1] >= 3, "three followers", 60)
        wait_until(lambda: in_python and over_socket, "news for them")
        for number in range(RESTARTS):
            wait_for_news(store, plan)
            valkey.kill()
            if number == RESTARTS - 1:
                scene.site.serve(delay_s=0.0)
                wait_until(lambda: stored_files(plan) == len(scene.undisturbed.sha256_by_key), "the last image", 60)
                # For longer than a question waits: the driver has to ask again.
                for _ in range(2):
                    with pytest.raises(StateError):
                        store.progress(plan.job_id)
            else:
                before = stored_files(plan)
                wait_until(lambda before=before: stored_files(plan) > before, "images without Redis", 60)
            valkey.start()
        assert end_of(driver) == 0
        for thread in following:
            thread.join(60)
        watched = watching.end()
    require_same(scene, plan)
    for versions in ([each.version for each in in_python], [each["version"] for each in over_socket]):
        assert versions == sorted(set(versions))
    assert in_python[-1].status == over_socket[-1]["status"] == watched.lines[-1]["status"] == "completed"
    assert in_python[-1].stored == over_socket[-1]["stored"] == watched.lines[-1]["stored"]
    assert watched.code == 1


@pytest.mark.parametrize("how", ["out of memory", "read-only", "disk full", "wrong password"])
def test_a_redis_that_refuses_to_write_delays_the_news_and_nothing_else(
    scenes: Scenes, tmp_path: Path, valkey: Valkey, how: str
) -> None:
    """The run stores images meanwhile, and the job's state is read as it was; then all is published."""
    scene = scenes.make(60, delay_s=0.5)
    plan = Plan(scene.site.manifest, tmp_path / "out", valkey.url, scene.scheduler)
    with connect(valkey.url, Path("unused")) as store, witnessed(plan.out, scene.undisturbed):
        driver = plan.begin()
        wait_until(lambda: stored_files(plan), "a stored image", 60)
        before = stored_files(plan)
        with valkey.refusing(how):
            with Redis.from_url(valkey.url) as redis:
                assert how == "wrong password" or not can_write(redis)
            version = how != "wrong password" and store.progress(plan.job_id).version
            wait_until(lambda: stored_files(plan) > before, "images while Redis refuses", 60)
            if version:
                assert store.progress(plan.job_id).version == version
        wait_for_news(store, plan)
        assert end_of(driver) == 0
    require_same(scene, plan)


@pytest.mark.parametrize("how", ["out of memory", "read-only", "disk full"])
def test_a_redis_that_refuses_to_write_still_says_that_a_driver_has_died(valkey: Valkey, how: str) -> None:
    """And writes it down as soon as it can."""
    job = Job("1-photos", "photos/", "out/")
    with connect(valkey.url, Path("unused")) as store:
        store.create(job)
        store.acquire(job, lease_s=0.2)
        before = store.progress(job.id)
        assert before.status == "processing"
        with valkey.refusing(how):
            wait_until(lambda: store.progress(job.id).status == "stalled", "the end of the lease")
            assert [found.status for _, found in store.jobs()] == ["stalled"]
            assert store.progress(job.id).version == before.version
        assert store.progress(job.id).status == "stalled"
        assert store.progress(job.id).version > before.version


def can_write(redis: Redis) -> bool:
    try:
        return bool(redis.set("anything", "1"))
    except Exception:  # noqa: BLE001 - however it refuses
        return False


def test_a_redis_that_hangs_for_longer_than_a_lease_holds_neither_run_nor_state(
    scenes: Scenes, tmp_path: Path, valkey: Valkey
) -> None:
    """Nobody takes the job over, since nobody can; whoever follows it sees the end."""
    scene = scenes.make(400, delay_s=0.5)
    plan = Plan(scene.site.manifest, tmp_path / "out", valkey.url, scene.scheduler)
    heard: list[Progress] = []
    with connect(valkey.url, Path("unused")) as store, witnessed(plan.out, scene.undisturbed):
        driver = plan.begin()
        wait_until(lambda: stored_files(plan), "a stored image", 60)
        following = followed(store.updates(plan.job_id), heard)
        wait_until(lambda: heard, "a follower")
        valkey.hold()
        held_at_s, counts = time.monotonic(), []
        for _ in range(7):
            counts.append(stored_files(plan))
            time.sleep(2)
        valkey.let_go()
        assert time.monotonic() - held_at_s > 13
        # It went on all the time.
        assert all(later > earlier for earlier, later in itertools.pairwise(counts))
        scene.site.serve(delay_s=0.0)
        assert end_of(driver) == 0
        following.join(60)
    require_same(scene, plan)
    assert heard[-1].status == "completed"
