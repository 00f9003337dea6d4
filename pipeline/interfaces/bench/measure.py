"""The measurements of ``pipeline bench``: ratios of runs that took turns, since machines are noisy."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from PIL import Image

import pipeline
from pipeline.domain import Recipe
from pipeline.interfaces.bench.bare_loop import run_bare_loop
from pipeline.interfaces.bench.bare_network import run_bare_network
from pipeline.interfaces.demo.server import serve_folder

PHOTOGRAPHS: Final = 300
SIZE: Final = (1600, 1200)
LATENCY_S: Final = 0.05
FEW_ITEMS, MANY_ITEMS = 2_000, 200_000


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of the benchmark."""

    what: str
    figure: str
    detail: str


def make_photographs(folder: Path, count: int = PHOTOGRAPHS) -> list[str]:
    """Make JPEGs of 1600 x 1200 out of the photographs in the package; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(7)
    packaged = resources.files("pipeline.interfaces.demo").joinpath("photographs")
    photographs = []
    for file in sorted(packaged.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".jpg"):
            with file.open("rb") as opened:
                photographs.append(Image.open(opened).convert("RGB"))
    names = [f"{number:04}.jpg" for number in range(count)]
    for name, photograph in zip(names, itertools.cycle(photographs), strict=False):
        side = chance.uniform(0.6, 1.0) * min(photograph.width, photograph.height * 4 / 3)
        left = chance.uniform(0, photograph.width - side)
        top = chance.uniform(0, photograph.height - side * 3 / 4)
        box = (left, top, left + side, top + side * 3 / 4)
        photograph.resize(SIZE, Image.Resampling.BICUBIC, box=box).save(folder / name, quality=88)
    return names


def measure_pipeline(urls: Sequence[str], folder: Path, workers: int, enhance: str | None = None) -> float:
    """Return images/s of a whole job on a local cluster; the start of its workers is not counted."""
    return _run(urls, folder, workers, enhance).progress.images_per_second


def measure_enhance_stage(urls: Sequence[str], folder: Path, workers: int, model: str) -> float:
    """Return megapixels/s of the enhance stage in a whole job, as if all workers were in it all the time."""
    outcomes = _run(urls, folder, workers, model).outcomes()
    megapixels = (outcomes["width"] * outcomes["height"]).sum() / 1e6
    return float(workers * megapixels / outcomes["seconds_enhance"].sum())


def measure_bare_loop(urls: Sequence[str], folder: Path, workers: int) -> float:
    """Return images/s of the same codecs in a bare loop."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return run_bare_loop(urls, folder, workers)


def compare_with_bare_loop(urls: Sequence[str], folder: Path, workers: int, rounds: int) -> Measurement:
    """Run the pipeline and the bare loop in turns."""
    ours, bare = in_turns(
        rounds,
        lambda: measure_pipeline(urls, folder / "out", workers),
        lambda: measure_bare_loop(urls, folder / "bare", workers),
    )
    return ratio("whole job, resize only, against the bare loop", ours, bare)


def compare_with_enhancement(
    urls: Sequence[str], folder: Path, workers: int, rounds: int, model: str = "restore"
) -> Iterator[Measurement]:
    """Run the pipeline with a model and without, and the model's network alone, in turns."""
    few = urls[: max(10, len(urls) // 4)]
    with_model, without, stage, bare = in_turns(
        rounds,
        lambda: measure_pipeline(few, folder / "enhanced", workers, model),
        lambda: measure_pipeline(urls, folder / "out", workers),
        lambda: measure_enhance_stage(few, folder / "enhanced", workers, model),
        lambda: run_bare_network(model, workers),
    )
    yield ratio(f"whole job with `{model}`, against without", with_model, without)
    yield ratio(f"enhance stage with `{model}`, against its network alone", stage, bare, "megapixels/s")


def compare_slow_source(
    photographs: Path, names: Sequence[str], folder: Path, workers: int, rounds: int
) -> Measurement:
    """Run the pipeline on a source that takes 50 ms to answer each request, and on the same source without."""
    with serve_folder(photographs, LATENCY_S) as slow, serve_folder(photographs) as fast:
        slow_speeds, fast_speeds = in_turns(
            rounds,
            lambda: measure_pipeline([f"{slow}/{name}" for name in names], folder / "slow", workers),
            lambda: measure_pipeline([f"{fast}/{name}" for name in names], folder / "fast", workers),
        )
    return ratio(f"a source with {LATENCY_S * 1000:.0f} ms of latency, against one without", slow_speeds, fast_speeds)


def measure_overhead(folder: Path) -> Iterator[Measurement]:
    """Run 2,000 and 200,000 items through stages that do nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    few, many = (idle_in_process_of_its_own(count, folder) for count in (FEW_ITEMS, MANY_ITEMS))
    yield Measurement(
        f"memory of driver and scheduler, {MANY_ITEMS:,} items against {FEW_ITEMS:,}",
        f"{many['peak_mb'] - few['peak_mb']:+.0f} MB",
        f"{many['peak_mb']:.0f} MB against {few['peak_mb']:.0f} MB",
    )
    yield Measurement(
        "items/s of the same run: what Dask, Redis and the ledger cost",
        f"{many['items_per_second']:,.0f}",
        f"{MANY_ITEMS:,} items, four stages that do nothing",
    )


def measure_first_image(photographs: Path, folder: Path, rounds: int) -> Measurement:
    """Time ``pipeline run`` from its start to its first stored image, the start of the cluster included."""
    seconds = []
    for number in range(rounds):
        out = folder / f"first-{number}"
        started = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "pipeline", "run", str(photographs), str(out), "--enhance", "none", "--json"],
            stdout=subprocess.DEVNULL,
        ) as process:
            while process.poll() is None and next(out.glob("*.jpg"), None) is None:
                time.sleep(0.01)
            seconds.append(time.perf_counter() - started)
    return Measurement(
        "first image stored after `pipeline run` starts",
        f"{statistics.median(seconds):.1f} s",
        f"{min(seconds):.1f} to {max(seconds):.1f} s in {rounds} runs",
    )


def in_turns(rounds: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Take each measure once a round; return the figures of each."""
    figures = [[measure() for measure in measures] for _ in range(rounds)]
    return [list(figure) for figure in zip(*figures, strict=True)]


def _run(urls: Sequence[str], folder: Path, workers: int, enhance: str | None) -> pipeline.JobHandle:
    shutil.rmtree(folder, ignore_errors=True)
    job = pipeline.run(urls, folder, Recipe(enhance=enhance), workers=workers, allow_private=True)
    job.join()
    progress = job.progress
    if progress.stored != len(urls):
        raise SystemExit(f"{progress.stored} of {len(urls)} images were stored: {progress.error}")
    return job


def ratio(what: str, ours: Sequence[float], theirs: Sequence[float], unit: str = "images/s") -> Measurement:
    """Compare the figures of two measures that took turns."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Measurement(
        what,
        f"{statistics.median(ratios):.2f}",
        f"{statistics.median(ours):.3g} against {statistics.median(theirs):.3g} {unit}; "
        f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds",
    )


def idle_in_process_of_its_own(count: int, folder: Path) -> dict[str, float]:
    """Run empty stages over so many items, in a process whose peak memory is of nothing else."""
    command = [sys.executable, "-m", "pipeline.interfaces.bench.idle", str(count), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
