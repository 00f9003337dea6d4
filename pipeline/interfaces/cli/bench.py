"""``pipeline bench``: the benchmark, on this machine."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.display.text import write_json
from pipeline.errors import SourceError
from pipeline.interfaces.cli.options import AsJson

if TYPE_CHECKING:
    from pipeline.interfaces.bench.measure import Measurement


def bench(
    images: Annotated[int, typer.Option(min=10, help="Images in a run.")] = 1200,
    rounds: Annotated[int, typer.Option(min=1, help="How often each pair takes turns.")] = 3,
    urls: Annotated[
        Path | None, typer.Option(metavar="FILE.txt", help="URLs to fetch instead of the photographs in the package.")
    ] = None,
    overhead: Annotated[bool, typer.Option(help="Also run 200,000 items through idle stages.")] = True,
    json: AsJson = False,
) -> None:
    """Measure the pipeline on this machine, against a bare loop of the same codecs.

    Only ratios of runs that took turns mean something: close other programs, and do not compare machines by them.
    """
    table = Table(box=None, header_style="bold")
    for name in ("What", "Measured", "How"):
        table.add_column(name, justify="right" if name == "Measured" else "left")
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as folder, console.status("Measuring …") as status:
        for row in _measure(Path(folder), images, rounds, urls, overhead):
            status.update(f"Measured: {row.what}")
            if json:
                write_json(dataclasses.asdict(row))
            table.add_row(row.what, f"[bold]{row.figure}[/]", row.detail)
    if not json:
        Console().print(table)


def _measure(folder: Path, images: int, rounds: int, urls: Path | None, overhead: bool) -> Iterator[Measurement]:
    from dask.system import CPU_COUNT

    from pipeline.interfaces.bench import measure
    from pipeline.interfaces.demo.server import serve_folder

    workers = CPU_COUNT
    photographs = folder / "photographs"
    distinct = measure.make_photographs(photographs)
    names = [f"{name}?v={number}" for number, name in zip(range(images), itertools.cycle(distinct), strict=False)]
    if urls:
        try:
            given = urls.read_text("utf-8").split()
        except OSError as error:
            raise SourceError(f"cannot read the URLs in {str(urls)!r}: {error}") from error
        yield measure.compare_with_bare_loop(given, folder, workers, rounds)
        yield from measure.compare_with_enhancement(given, folder, workers, rounds)
    else:
        with serve_folder(photographs) as base_url:
            served = [f"{base_url}/{name}" for name in names]
            yield measure.compare_with_bare_loop(served, folder, workers, rounds)
            yield from measure.compare_with_enhancement(served, folder, workers, rounds)
    yield measure.compare_slow_source(photographs, names, folder, workers, rounds)
    yield measure.measure_first_image(photographs, folder, rounds)
    if overhead:
        yield from measure.measure_overhead(folder / "idle")
