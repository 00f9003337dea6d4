"""The limit of the enhance stage on a machine: its network alone, in one process a core, on one array again and again.

``python -m pipeline.interfaces.bench.bare_network MODEL PROCESSES`` prints megapixels/s.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import numpy as np

from pipeline.catalogue import EnhancementModel, find_model, load_model

# Rows and columns of the benchmark's photographs after the resize stage.
SHAPE: Final = (768, 1024)

PREDICTIONS: Final = 40


def predict(name: str, count: int) -> float:
    """Run a model of the catalogue `count` times; return the megapixels."""
    model = _load(name)
    pixels = np.random.default_rng(0).random((1, *SHAPE, 3), dtype=np.float32)
    for _ in range(count):
        model.predict(pixels)
    return count * SHAPE[0] * SHAPE[1] / 1e6


def run_bare_network(name: str, processes: int) -> float:
    """Return megapixels/s; the model is loaded, and has run a few times, before the clock starts."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        # As many at once as there are processes, and each long enough for every process to get one.
        list(pool.map(predict, [name] * processes, [5] * processes))
        started = time.perf_counter()
        megapixels = sum(pool.map(predict, [name] * processes, [PREDICTIONS] * processes))
        return megapixels / (time.perf_counter() - started)


@functools.cache
def _load(name: str) -> EnhancementModel:
    return load_model(find_model(name))


if __name__ == "__main__":
    model_name, count = sys.argv[1:]
    sys.stdout.write(f"{run_bare_network(model_name, int(count))}\n")
