"""Two workers against one: a scheduler and workers of Dask's own commands, a thread each, with a model.

``python -m pipeline.interfaces.bench.workers [IMAGES [ROUNDS]]``.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from distributed import Client

import pipeline
from pipeline.domain import Recipe
from pipeline.interfaces.bench.measure import in_turns, make_photographs, ratio


@contextlib.contextmanager
def start_dask(folder: Path, workers: int) -> Iterator[Client]:
    """Start a scheduler and workers as processes of their own, on loopback."""
    scheduler_file = str(folder / f"scheduler-{secrets.token_hex(4)}.json")
    common = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", scheduler_file)
    commands = [("scheduler", "--port", "0"), *[("worker", "--nthreads", "1", "--nworkers", "1")] * workers]
    processes = [
        subprocess.Popen([sys.executable, "-m", "dask", *command, *common], stderr=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        with Client(scheduler_file=scheduler_file, timeout=60) as client:
            client.wait_for_workers(workers, timeout=60)
            yield client
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def measure_workers(folder: Path, images: int, workers: int) -> float:
    """Return images/s of a whole job with `restore`; the start of its workers and their models is not counted."""
    with start_dask(folder, workers) as client:
        job = pipeline.run(folder / "photos", folder / f"out-{secrets.token_hex(4)}", Recipe(), client=client)
        job.join()
    if job.progress.stored != images:
        raise SystemExit(f"{job.progress.stored} of {images} images were stored: {job.progress.error}")
    return job.progress.images_per_second


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int, nargs="?", default=120)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as name:
        folder = Path(name)
        make_photographs(folder / "photos", chosen.images)
        two, one = in_turns(
            chosen.rounds,
            lambda: measure_workers(folder, chosen.images, 2),
            lambda: measure_workers(folder, chosen.images, 1),
        )
    row = ratio("two workers against one", two, one)
    print(f"{row.what}: {row.figure} ({row.detail})")  # noqa: T201


if __name__ == "__main__":
    main()
