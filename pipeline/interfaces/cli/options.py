"""The arguments and options that several commands share, and the Recipe that they make."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.domain import FITS, FORMATS, Recipe
from pipeline.errors import RecipeError

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
Strength = Annotated[
    float | None,
    typer.Option(metavar="0..1", help=f"The enhanced image's part in the blend ({_DEFAULT.strength:g})."),
]
Enlarge = Annotated[bool | None, typer.Option("--enlarge", help="Enlarge images that are smaller than the box.")]
KeepCopyright = Annotated[
    bool | None, typer.Option("--keep-copyright", help="Keep the EXIF tags Artist and Copyright; all else is removed.")
]
AllowPrivate = Annotated[
    bool | None, typer.Option("--allow-private", help="Allow sources on addresses that are not public.")
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Follow a folder's links to files outside of it; else these fail.")
]
ConnectionsPerHost = Annotated[int, typer.Option(metavar="N", help="Requests at once to a web server, at most.")]
RequestsPerSecond = Annotated[
    float | None, typer.Option(metavar="R", help="Requests a second to a web server, at most; else no limit.")
]
IgnoreRobots = Annotated[
    bool, typer.Option("--ignore-robots", help="Store images though their server's X-Robots-Tag forbids it.")
]
UserAgent = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Who you are, for web servers: NAME/VERSION (+URL).")
]
ImageTimeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="For one image to be decoded, or to be encoded; more, and it fails.")
]
ImageMemory = Annotated[int, typer.Option(metavar="MIB", help="For one image; it fails before it is decoded.")]
UrlColumn = Annotated[str, typer.Option(metavar="NAME", help="The manifest's column that holds the URLs.")]
KeyColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="The manifest's column that holds the results' names.")
]
HashColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="The manifest's column that holds hashes, which are verified.")
]
CarryColumns = Annotated[
    list[str] | None,
    typer.Option("--carry-column", metavar="NAME", help="A column to write into the ledger; may be repeated."),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id; `pipeline jobs` lists them.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines on standard output, and nothing else there.")]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS|FILE",
        envvar="PIPELINE_CLUSTER",
        help="A Dask scheduler, its file (.json), or settings (.toml) that name a cluster; else a local one.",
    ),
]


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
