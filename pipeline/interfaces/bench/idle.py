"""A run whose stages do nothing: what is left is what Dask, Redis and the ledger cost.

``python -m pipeline.interfaces.bench.idle ITEMS FOLDER`` prints items/s and the peak memory of this process, which is
driver and scheduler in one, as JSON; and the bytes that the run needs on disk, for its ledger and for scratch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.catalogue import ModelCard
from pipeline.domain import Item, Job, Outcome, Recipe, SourceVersion
from pipeline.runner.cluster import open_client
from pipeline.runner.driver import Driver
from pipeline.runner.images import Carried, Equipment
from pipeline.settings import Settings
from pipeline.sources import open_collection
from pipeline.stages.lender import Lender
from pipeline.state import connect


class IdleEquipment(Equipment):
    """Does nothing to an image and says that it was stored."""

    def __init__(
        self,
        job: Job,
        card: ModelCard | None = None,
        storage_options: Mapping[str, Any] | None = None,
        threads: int = 1,
        lender: Lender | None = None,
    ) -> None:
        self.job = job

    async def fetch(self, item: Item) -> Carried:
        """Fetch nothing."""
        return Carried(item)

    def _pass(self, carried: Carried) -> Carried:
        return carried

    identify = resize = enhance = encode = write = _pass

    def conclude(self, carried: Carried) -> Outcome:
        """Say that it was stored."""
        sha256 = hashlib.sha256(carried.item.key.encode()).hexdigest()
        return Outcome(
            carried.item, "stored", output=carried.item.key, sha256=sha256, source=SourceVersion(sha256=sha256)
        )

    async def aclose(self) -> None:
        """Close nothing."""


class ScratchWatch:
    """Watches how large this process's temporary databases become; on Linux, elsewhere it sees none."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._is_over.wait(0.5):
            size = 0
            for link in Path("/proc/self/fd").glob("*"):
                with contextlib.suppress(OSError):
                    # SQLite's, which have no name any more.
                    size += link.stat().st_size if "etilqs" in str(link.readlink()) else 0
            self.peak_mb = max(self.peak_mb, size / 1e6)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()


def run_idle(count: int, folder: Path) -> dict[str, float]:
    """Run `count` items through idle stages, all four of them; return items/s and what they took, in MB."""
    manifest = folder / f"{count}.txt"
    manifest.write_text("".join(f"https://example.org/photographs/{number}.jpg\n" for number in range(count)))
    job = Job(f"idle-{count}", str(manifest), str(folder / f"out-{count}"), Recipe(enhance="idle"))
    settings = Settings.from_environ()
    with connect(settings.redis_url, folder / "state") as store:
        before = store.create(job)
        lease = store.acquire(job)
        items = open_collection(job.collection)
        with ScratchWatch() as watch:
            Driver(job, items, lease, before, partial(open_client, None), equipment_type=IdleEquipment).run()
        progress = store.progress(job.id)
    if progress.stored != count:
        raise SystemExit(f"{progress.stored} of {count} items were stored: {progress.error}")
    # Linux counts in kB, macOS in bytes.
    unit = 1000 if sys.platform == "darwin" else 1
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit / 1024
    ledger_mb = sum(part.stat().st_size for part in Path(job.destination).rglob("*.parquet")) / 1e6
    return {
        "items": count,
        "items_per_second": progress.images_per_second,
        "peak_mb": peak_mb,
        "ledger_mb": ledger_mb,
        "scratch_mb": watch.peak_mb,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run_idle(int(sys.argv[1]), Path(sys.argv[2]))) + "\n")
