"""The limit on a machine: the same codecs on every core, with no cluster, no state, no retries.

``python -m pipeline.interfaces.bench.bare_loop URLS.txt FOLDER PROCESSES`` prints images/s.
"""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import aiohttp
from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

BATCH = 20
BOX = 1024


async def _fetch_all(urls: Sequence[str]) -> list[bytes]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=16)) as session:

        async def fetch(url: str) -> bytes:
            async with session.get(url) as response:
                return await response.read()

        return await asyncio.gather(*map(fetch, urls))


def process_batch(batch: Sequence[tuple[int, str]], folder: Path) -> int:
    """Fetch, decode, scale, encode and write a batch."""
    resizer = Resizer()
    options = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.lanczos3), use_alpha=False)
    bodies = asyncio.run(_fetch_all([url for _, url in batch]))
    for (number, _), body in zip(batch, bodies, strict=True):
        image = Image.open(io.BytesIO(body))
        scale = min(1.0, BOX / max(image.size))
        size = (round(image.width * scale), round(image.height * scale))
        image.draft("RGB", size)
        image.load()
        small = Image.new("RGB", size)
        resizer.resize_pil(image, small, options)
        encoded = io.BytesIO()
        small.save(encoded, "JPEG", quality=80)
        (folder / f"{number}.jpg").write_bytes(encoded.getbuffer())
    return len(batch)


def run_bare_loop(urls: Sequence[str], folder: Path, processes: int) -> float:
    """Return images/s; the processes are started, and have done a few batches, before the clock starts."""
    numbered = list(enumerate(urls))
    batches = [numbered[start : start + BATCH] for start in range(0, len(numbered), BATCH)]
    warm_up = batches[: 2 * processes]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(process_batch, warm_up, [folder] * len(warm_up)))
        started = time.perf_counter()
        stored = sum(pool.map(process_batch, batches, [folder] * len(batches)))
        return stored / (time.perf_counter() - started)


if __name__ == "__main__":
    url_file, folder, processes = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    speed = run_bare_loop(Path(url_file).read_text("utf-8").split(), Path(folder), int(processes))
    sys.stdout.write(f"{speed}\n")
