"""Shards of a driver that is held up: whatever the moment, every image ends in exactly one.

Of drivers that are killed, `tests.chaos.test_driver_kills` tells.
"""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from pipeline.state import connect
from tests.fixtures.photographs import make_photograph
from tests.fixtures.web import Reply, Web
from tests.interfaces.commands import Pipeline, ledger_rows, wait_until
from tests.runner.shards import assert_each_once

IMAGES = 160
BROKEN = 3

# The command line, but for small shards, and a driver that kills or stops itself before or after one of its steps.
SCRIPT = """
import os
import signal
import sys

from pipeline.interfaces.cli import main
from pipeline.runner import shards
from pipeline.runner.ledger import Ledger
from pipeline.runner.pieces import PieceFolder

shards.SHARD_BYTES = 40_000


def signal_itself(number, owner, name, when, times):
    step = getattr(owner, name)
    left = [int(times)]

    def deadly(*arguments, **options):
        left[0] -= 1
        if left[0] == 0 and when == "before":
            os.kill(os.getpid(), number)
        result = step(*arguments, **options)
        if left[0] == 0 and when == "after":
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, deadly)


if __name__ == "__main__":
    number, owner, name, when, times = sys.argv.pop(1).split(",")
    if number:
        owners = {"shards": shards, "ShardBuffer": shards.ShardBuffer, "Ledger": Ledger, "PieceFolder": PieceFolder}
        signal_itself(signal.Signals[number], owners[owner], name, when, times)
    main()
"""

UNHARMED = ",,,,"


class Site:
    """A web site of which some images are broken, and the runs of one job on it."""

    def __init__(self, web: Web, folder: Path, redis_url: str) -> None:
        self.out = folder / "out"
        self.script = folder / "run.py"
        self.script.write_text(SCRIPT)
        self.pipeline = Pipeline(folder, {"REDIS_URL": redis_url})
        self.manifest = folder / "list.csv"
        bodies = [make_photograph(seed, 96, 72) for seed in range(7)]
        urls = [
            web.reply(f"/{number}.jpg", Reply(b"no image" if number < BROKEN else bodies[number % 7], delay_s=0.6))
            for number in range(IMAGES)
        ]
        names = [f"set.{number % 4}/v1.{number}" for number in range(IMAGES)]
        rows = [f"{url},{name}" for url, name in zip(urls, names, strict=True)]
        self.manifest.write_text("\n".join(["url,name", *rows]))
        self.keys = set(names[BROKEN:])

    def arguments(self, moment: str) -> list[object]:
        recipe = ["--max-width", "64", "--max-height", "64", "--enhance", "none", "--retries", "0", "--workers", "2"]
        where = ["run", self.manifest, self.out, "--key-column", "name", "--job-id", "nightly", "--allow-private"]
        return [self.script, moment, *where, "--output", "webdataset", "--json", *recipe]

    def complete(self) -> None:
        """Run what is left, and look at all."""
        with self.pipeline.start_python(*self.arguments(UNHARMED)) as running:
            ended = running.end()
        assert (ended.code, ended.err) == (1, "")
        assert (ended.lines[-1]["stored"], ended.lines[-1]["failed"]) == (IMAGES - BROKEN, BROKEN)
        assert len(ledger_rows(self.out, "nightly")) == IMAGES
        assert_each_once(self.out, "nightly", self.keys)


@pytest.fixture
def site(web: Web, tmp_path: Path, valkey_url: str) -> Site:
    return Site(web, tmp_path, valkey_url)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["ShardBuffer,_publish", "ShardBuffer,flush"])
def test_a_driver_that_was_held_up_until_another_took_over_doubles_no_image(
    site: Site, step: str, valkey_url: str
) -> None:
    """It has a shard ready, or Outcomes, when it wakes; but another run has done all that was left."""
    with site.pipeline.start_python(*site.arguments(f"SIGSTOP,{step},before,2")) as held:
        process = psutil.Process(held.pid)
        held.wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "the driver's stop", 60)
        with connect(valkey_url, site.out) as store:
            wait_until(lambda: store.progress("nightly").status == "stalled", "the end of its lease")
        site.complete()
        held.send(signal.SIGCONT)
        assert held.end().code == 3
    assert len(ledger_rows(site.out, "nightly")) == IMAGES
    assert_each_once(site.out, "nightly", site.keys)
