"""A second run over a collection that has not changed, against the first one.

``python -m pipeline.interfaces.bench.again [IMAGES]`` runs a local folder of so many photographs twice.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Final

import pipeline
from pipeline.domain import Recipe
from pipeline.interfaces.bench.measure import Measurement, make_photographs

# Each is linked to as often as it takes: what is told from a listing does not depend on the bytes.
PHOTOGRAPHS: Final = 200


def run_again(collection: Path, destination: Path) -> Measurement:
    """Run a folder twice; both times are those of the whole call, the start of workers included."""
    seconds, jobs = [], []
    for _ in range(2):
        started = time.perf_counter()
        job = pipeline.run(collection, destination, Recipe(enhance=None))
        job.join()
        seconds.append(time.perf_counter() - started)
        jobs.append(job.progress)
    first, second = jobs
    if (second.skipped, second.stored) != (first.stored, 0):
        raise SystemExit(f"{second.stored} images were made again: {second.error}")
    detail = (
        f"{seconds[1]:.2f} s against {seconds[0]:.1f} s, {second.skipped:,} skipped, {second.bytes_in} bytes fetched"
    )
    return Measurement("an unchanged folder again", f"{seconds[1] / seconds[0]:.2%}", detail)


def link_photographs(folder: Path, images: int) -> None:
    """Make a folder with so many photographs, most of them links to the same few."""
    names = make_photographs(folder, min(images, PHOTOGRAPHS))
    for number in range(len(names), images):
        (folder / f"{number:06}.jpg").hardlink_to(folder / names[number % PHOTOGRAPHS])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int, nargs="?", default=10_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as name:
        link_photographs(Path(name) / "photos", chosen.images)
        row = run_again(Path(name) / "photos", Path(name) / "out")
    print(f"{row.what}: {row.figure} ({row.detail})")  # noqa: T201


if __name__ == "__main__":
    main()
