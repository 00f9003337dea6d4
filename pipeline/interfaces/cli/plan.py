"""``pipeline plan``: look before you run."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import pipeline
from pipeline.display.style import COLOUR_BY_STAGE
from pipeline.display.text import open_console, write_json
from pipeline.display.wording import format_bytes, format_seconds
from pipeline.interfaces.cli.options import (
    AllowPrivate,
    AsJson,
    Enhance,
    Enlarge,
    FitOption,
    FollowLinks,
    FormatOption,
    MaxHeight,
    MaxWidth,
    Quality,
    RecipeFile,
    Strength,
    UrlColumn,
    make_recipe,
)


def plan(
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="As for `pipeline run`.")],
    recipe: RecipeFile = None,
    max_width: MaxWidth = None,
    max_height: MaxHeight = None,
    fit: FitOption = None,
    format: FormatOption = None,
    quality: Quality = None,
    enhance: Enhance = None,
    strength: Strength = None,
    enlarge: Enlarge = None,
    workers: Annotated[int | None, typer.Option(min=1, help="The cores to estimate for (this machine's).")] = None,
    url_column: UrlColumn = "url",
    allow_private: AllowPrivate = None,
    follow_links: FollowLinks = False,
    json: AsJson = False,
) -> None:
    """Try a sample of a collection and estimate the whole run; nothing is stored."""
    options = {
        "max_width": max_width,
        "max_height": max_height,
        "fit": fit,
        "format": format,
        "quality": quality,
        "enhance": enhance,
        "strength": strength,
        "enlarge": enlarge,
    }
    chosen = make_recipe(recipe, options)
    with Console(stderr=True).status("Trying a sample …"):
        found = pipeline.plan(
            collection,
            chosen,
            threads=workers,
            url_column=url_column,
            allow_private=allow_private,
            follow_links=follow_links,
        )
    if json:
        write_json(dataclasses.asdict(found))
    else:
        _print(found)


def _print(found: pipeline.Plan) -> None:
    console = open_console()
    console.print(
        f"[bold]{found.total:,} images[/], about [bold]{format_seconds(found.eta_seconds)}[/] "
        f"at {found.images_per_second:,.1f} images/s on {found.threads} cores "
        f"(judged by {found.sampled}, of which {found.failed} failed)",
        highlight=False,
    )
    slowest = max(found.seconds_by_stage.values())
    table = Table.grid(padding=(0, 2))
    for stage, seconds in found.seconds_by_stage.items():
        bar = "━" * round(36 * seconds / slowest) if slowest else ""
        color = COLOUR_BY_STAGE[stage]
        table.add_row(f"  [{color}]{stage}[/]", format_seconds(seconds), f"[{color}]{bar}[/]")
    console.print(table)
    bytes_in, bytes_out = (format_bytes(round(mean * found.total)) for mean in (found.bytes_in, found.bytes_out))
    console.print(
        f"{bytes_in} in, {bytes_out} out; "
        f"the largest of the sample takes {format_bytes(found.peak_bytes)} of memory while it is decoded",
        highlight=False,
    )
    console.print(f"Bottleneck: [bold]{found.bottleneck}[/]. {found.advice}", highlight=False)
