"""A run whose stages do nothing: what is left is what Dask, Redis and the ledger cost.

``python -m pipeline.interfaces.bench.idle ITEMS FOLDER`` prints items/s and the peak memory of this process, which is
driver and scheduler in one, as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.catalogue import ModelCard
from pipeline.domain import Item, Job, Outcome, Recipe
from pipeline.runner.cluster import open_client
from pipeline.runner.driver import Driver
from pipeline.runner.images import Carried, Equipment
from pipeline.settings import Settings
from pipeline.sources import open_collection
from pipeline.stages.gate import Lender
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

    identify = resize = enhance = store = _pass

    def conclude(self, carried: Carried) -> Outcome:
        """Say that it was stored."""
        return Outcome(carried.item, "stored", output=carried.item.key, sha256="0" * 64)

    async def aclose(self) -> None:
        """Close nothing."""


def run_idle(count: int, folder: Path) -> dict[str, float]:
    """Run `count` items through idle stages, all four of them; return items/s and the peak memory in MB."""
    manifest = folder / f"{count}.txt"
    manifest.write_text("".join(f"https://example.org/photographs/{number}.jpg\n" for number in range(count)))
    job = Job(f"idle-{count}", str(manifest), str(folder / f"out-{count}"), Recipe(enhance="idle"))
    settings = Settings.from_environ()
    with connect(settings.redis_url, folder / "state") as store:
        before = store.create(job)
        lease = store.acquire(job)
        items = open_collection(job.collection)
        Driver(job, items, lease, before, partial(open_client, None), equipment_type=IdleEquipment).run()
        progress = store.progress(job.id)
    if progress.stored != count:
        raise SystemExit(f"{progress.stored} of {count} items were stored: {progress.error}")
    # Linux counts in kB, macOS in bytes.
    unit = 1000 if sys.platform == "darwin" else 1
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit / 1024
    return {"items_per_second": progress.images_per_second, "peak_mb": peak_mb}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run_idle(int(sys.argv[1]), Path(sys.argv[2]))) + "\n")
