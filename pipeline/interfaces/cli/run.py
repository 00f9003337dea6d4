"""``pipeline run``: the main job."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

import pipeline
from pipeline.domain import FITS, FORMATS, Recipe
from pipeline.errors import DestinationError, RecipeError
from pipeline.interfaces.cli import exits, follow
from pipeline.interfaces.cli.jobs import AsJson, ClusterOption

_DEFAULT = Recipe()

RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE.toml", help="A recipe's fields; the options below override it.")
]
MaxWidth = Annotated[int | None, typer.Option(help=f"The box's width in pixels ({_DEFAULT.max_width}).")]
MaxHeight = Annotated[int | None, typer.Option(help=f"The box's height in pixels ({_DEFAULT.max_height}).")]
FitOption = Annotated[
    str | None, typer.Option(metavar="|".join(FITS), help=f"How an image meets the box ({_DEFAULT.fit}).")
]
FormatOption = Annotated[
    str | None, typer.Option(metavar="|".join(FORMATS), help=f"The output's format ({_DEFAULT.format}).")
]
Quality = Annotated[int | None, typer.Option(metavar="1..100", help=f"Of the lossy formats ({_DEFAULT.quality}).")]
Enhance = Annotated[
    str | None, typer.Option(metavar="NAME|none", help=f"The enhancement model ({_DEFAULT.enhance or 'none'}).")
]
Enlarge = Annotated[bool | None, typer.Option("--enlarge", help="Enlarge images that are smaller than the box.")]
KeepCopyright = Annotated[
    bool | None, typer.Option("--keep-copyright", help="Keep the EXIF tags Artist and Copyright; all else is removed.")
]
AllowPrivate = Annotated[
    bool | None, typer.Option("--allow-private", help="Allow sources on addresses that are not public.")
]
UrlColumn = Annotated[str, typer.Option(metavar="NAME", help="The manifest's column that holds the URLs.")]


def run(
    collection: Annotated[
        str,
        typer.Argument(metavar="COLLECTION", help="A folder, a quoted glob, a URL, or a manifest (txt, csv, jsonl)."),
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", envvar="PIPELINE_DESTINATION", help="The folder of the results.")
    ],
    recipe: RecipeFile = None,
    max_width: MaxWidth = None,
    max_height: MaxHeight = None,
    fit: FitOption = None,
    format: FormatOption = None,
    quality: Quality = None,
    enhance: Enhance = None,
    enlarge: Enlarge = None,
    keep_copyright: KeepCopyright = None,
    job_id: Annotated[
        str | None, typer.Option(metavar="ID", help="A name of yours; the same again resumes it.")
    ] = None,
    cluster: ClusterOption = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes of the local cluster (one a core).")] = None,
    url_column: UrlColumn = "url",
    allow_private: AllowPrivate = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="For one whole answer of a source.")] = 30.0,
    retries: Annotated[int, typer.Option(help="How often a source that may recover is asked again.")] = 2,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a report when it has ended.")] = None,
    json: AsJson = False,
) -> None:
    """Fetch, resize, enhance and store every image of a collection.

    Exit codes: 0 every image stored or skipped, 1 some failed, 2 wrong usage,
    3 the job could not run, 130 interrupted (and can be resumed).
    """
    options = {
        "max_width": max_width,
        "max_height": max_height,
        "fit": fit,
        "format": format,
        "quality": quality,
        "enhance": enhance,
        "enlarge": enlarge,
        "keep_copyright": keep_copyright,
    }
    if report:
        _require_folder_of(report)
    handle = pipeline.run(
        collection,
        destination,
        make_recipe(recipe, options),
        job_id=job_id,
        cluster=cluster,
        workers=workers,
        url_column=url_column,
        allow_private=allow_private,
        timeout=timeout,
        retries=retries,
    )
    progress = follow.drive(handle, as_json=json)
    if report:
        write_report_of(handle, report)
        typer.echo(f"Report: {report}", err=json)
    raise typer.Exit(exits.code_of(progress))


def make_recipe(file: Path | None, options: dict[str, Any]) -> Recipe:
    """Make a Recipe of a TOML file and of the options that were given, which win.

    Raises
    ------
    RecipeError
        If the file cannot be read, or a field is unknown or out of range.
    """
    values: dict[str, Any] = {}
    if file:
        try:
            values = tomllib.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RecipeError(f"cannot read the recipe {str(file)!r}: {error}") from error
    values |= {name: value for name, value in options.items() if value is not None}
    if values.get("enhance") == "none":
        values["enhance"] = None
    return Recipe.from_mapping(values)


def _require_folder_of(report: Path) -> None:
    # Better now than after a night's run.
    if report.is_dir() or not report.parent.is_dir():
        raise DestinationError(f"cannot write the report {str(report)!r}: it must be a file in a folder that exists")


def write_report_of(handle: pipeline.JobHandle, path: Path) -> None:
    """Write the HTML report of a job that has ended."""
    from pipeline.interfaces.report import write_report

    write_report(handle.outcomes(), handle.progress, handle.job, path)
