"""``pipeline demo``: the main job on the photographs in the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

import pipeline
from pipeline.display.text import open_console
from pipeline.domain import Recipe
from pipeline.interfaces.cli import exits, follow


def demo(
    folder: Annotated[Path, typer.Argument(help="Where the demo puts its photographs and results.")] = Path(
        "pipeline-demo"
    ),
) -> None:
    """Run the main job on the photographs in the package, served over HTTP on loopback, and say where to look.

    A few of them are broken on purpose: what fails is listed at the end, with its reason and a remedy.
    """
    from pipeline.display.contact_sheet import write_contact_sheet
    from pipeline.interfaces.demo.corpus import make_corpus
    from pipeline.interfaces.demo.server import serve_folder

    console = open_console()
    source, results = folder / "photographs", folder / "results"
    with Progress(
        TextColumn("Making a collection of photographs"), BarColumn(), MofNCompleteColumn(), console=console
    ) as bar:
        task = bar.add_task("", total=None)
        paths = make_corpus(source, on_made=lambda done, total: bar.update(task, completed=done, total=total))
    with serve_folder(source) as base_url:
        handle = pipeline.run(
            [f"{base_url}/{path}" for path in paths],
            results,
            Recipe(format="webp"),
            # Whoever asks for a demonstration wants to see it, also the second time.
            force=True,
            allow_private=True,
            timeout=3,
            retries=1,
        )
        # Its server ends with this block, so there is nothing to go on with.
        progress = follow.drive(handle, is_repeatable=False)
    if progress.status != "completed":
        raise typer.Exit(exits.code_of(progress))
    outcomes = handle.outcomes()
    sheet, report = folder / "contact-sheet.jpg", folder / "report.html"
    write_contact_sheet([Path(output) for output in outcomes["output"] if output], sheet)
    handle.report(report)
    table = Table.grid(padding=(0, 2))
    for place, content in (
        (sheet, "the results on one sheet"),
        (report, "images/s over time, seconds by stage, failures"),
        (results, "the results themselves, and the ledger"),
    ):
        table.add_row(f"  [bold]{escape(str(place))}[/]", content)
    console.print("\nLook at", table, "Then try your own: [bold]pipeline run PHOTOS RESULTS[/]", highlight=False)
