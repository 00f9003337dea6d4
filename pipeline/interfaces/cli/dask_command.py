"""``dask pipeline``: the same commands, for people who live in Dask's command line.

Dask's line is made of Click, which comes with Dask; Typer has a Click of its own. So this passes the words on.
"""

from __future__ import annotations

import click

from pipeline.interfaces.cli import main


@click.command(
    "pipeline",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def pipeline(arguments: tuple[str, ...]) -> None:
    """Fetch, resize, enhance and store whole collections of images."""
    main(arguments, "dask pipeline")
