"""Whole processes: killed, interrupted, cancelled from elsewhere, and gone on with."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fixtures.photographs import make_photograph
from tests.fixtures.web import Reply, Web
from tests.interfaces.commands import Ended, Pipeline, Running, ledger_rows, stored_bytes, wait_until

IMAGES = 400
JOB = "nightly"


@dataclass(frozen=True)
class Undisturbed:
    """What a run that nobody disturbed leaves."""

    rows: list[dict[str, Any]]
    files: dict[str, str]


@dataclass(frozen=True)
class Site:
    """A slow web site, the manifest of its images, and the command line with its own state."""

    web: Web
    manifest: Path
    out: Path
    pipeline: Pipeline

    def run(self, *options: str) -> tuple[str, ...]:
        """Return the arguments of the run."""
        recipe = ("--max-width", "64", "--max-height", "64", "--timeout", "10", "--retries", "0")
        return ("run", str(self.manifest), str(self.out), "--job-id", JOB, "--allow-private", *recipe, *options)

    def wait_for_ledger(self) -> None:
        """Wait until the ledger has its first rows."""
        wait_until(lambda: ledger_rows(self.out, JOB), "rows in the ledger")

    def status(self) -> str:
        """Return the job's status, as another process sees it."""
        return str(self.pipeline("status", JOB, "--json").lines[0]["status"])


def _serve(web: Web, folder: Path, delay_s: float) -> Path:
    """Serve the same images as ever, a few of them missing or broken; return their manifest."""
    bodies = [make_photograph(seed, 96, 72) for seed in range(7)]
    urls = []
    for number in range(IMAGES):
        body = b"no image" if number % 50 == 11 else bodies[number % 7]
        status = 404 if number % 50 == 7 else 200
        urls.append(web.reply(f"/{number:03}.jpg", Reply(body, status, delay_s=delay_s)))
    manifest = folder / "manifest.txt"
    manifest.write_text("\n".join(urls))
    return manifest


@pytest.fixture(scope="module")
def undisturbed(web_server: Web, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Run the collection once without a fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    web_server.reset()
    manifest = _serve(web_server, folder, delay_s=0.0)
    site = Site(web_server, manifest, folder / "out", Pipeline(folder, {"REDIS_URL": valkey_server}))
    ended = site.pipeline(*site.run())
    assert ended.code == 1, ended
    return Undisturbed(ledger_rows(site.out, JOB), stored_bytes(site.out))


@pytest.fixture
def site(undisturbed: Undisturbed, web: Web, valkey_url: str, tmp_path: Path) -> Site:
    """Serve the collection slowly enough for a run to be caught in its middle."""
    manifest = _serve(web, tmp_path, delay_s=0.5)
    return Site(web, manifest, tmp_path / "out", Pipeline(tmp_path, {"REDIS_URL": valkey_url}))


def wait_for_death(family: Sequence[psutil.Process], timeout_s: float) -> float:
    """Wait until none of these processes is left; return the seconds that it took."""
    began = time.monotonic()
    _, alive = psutil.wait_procs(family, timeout_s)
    assert not alive, [process.cmdline() for process in alive]
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("how", ["resume", "run"])
def test_a_killed_run_is_gone_on_with_as_if_nothing_had_been(site: Site, undisturbed: Undisturbed, how: str) -> None:
    with site.pipeline.start(*site.run()) as running:
        site.wait_for_ledger()
        family = running.family()
        assert len(family) > 2
        running.send(signal.SIGKILL)
        running.end()
        print("DEATH", wait_for_death(family[1:], 20.0))
    recorded = ledger_rows(site.out, JOB)
    assert 0 < len(recorded) < IMAGES
    assert all(psutil.pid_exists(process.pid) is False for process in family)
    t = time.monotonic()
    ended = site.pipeline(*(("resume", JOB) if how == "resume" else site.run()))
    print(ended, time.monotonic() - t)
    assert (ended.code, ledger_rows(site.out, JOB)) == (1, undisturbed.rows)
    assert stored_bytes(site.out) == undisturbed.files
    fetched_twice = {f"/{row['key'].rpartition('/')[2]}.jpg" for row in recorded} & {
        path for path, count in site.web.requests.items() if count > 1
    }
    assert not fetched_twice
    assert site.status() == "completed"
