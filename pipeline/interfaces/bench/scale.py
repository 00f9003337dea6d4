"""What ten million items would take: runs of empty stages, each longer than the one before, and straight lines.

``python -m pipeline.interfaces.bench.scale [ITEMS …]`` runs so many items, each time in a process of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.interfaces.bench.measure import idle_in_process_of_its_own

ITEMS: Final = (50_000, 150_000, 300_000)
MANY: Final = 10_000_000
_MEASURES: Final = {"seconds": "s", "peak_mb": "MB", "ledger_mb": "MB", "scratch_mb": "MB"}


def main() -> None:
    """Measure, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("items", type=int, nargs="*", default=ITEMS)
    runs = []
    for count in parser.parse_args().items:
        with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as folder:
            run = idle_in_process_of_its_own(count, Path(folder))
        run["seconds"] = count / run["items_per_second"]
        runs.append(run)
        print(f"{count:>10,} items: " + ", ".join(f"{name} {run[name]:,.1f}" for name in _MEASURES), flush=True)  # noqa: T201
    counts = [run["items"] for run in runs]
    for name, unit in _MEASURES.items():
        slope, intercept = np.polyfit(counts, [run[name] for run in runs], 1)
        many = intercept + slope * MANY
        print(f"{name}: {slope * 1e6:,.2f} {unit} a million items; {MANY:,} items: {many:,.0f} {unit}")  # noqa: T201


if __name__ == "__main__":
    main()
