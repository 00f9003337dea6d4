"""``pipeline run``: the main job."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, cast

import typer

import pipeline
from pipeline.domain import OUTPUTS, Output
from pipeline.interfaces.cli import exits, follow
from pipeline.interfaces.cli.options import (
    AllowPrivate,
    AsJson,
    CarryColumns,
    ClusterOption,
    ConnectionsPerHost,
    Enhance,
    Enlarge,
    FitOption,
    FollowLinks,
    FormatOption,
    HashColumn,
    IgnoreRobots,
    ImageMemory,
    ImageTimeout,
    KeepCopyright,
    KeyColumn,
    MaxHeight,
    MaxWidth,
    Quality,
    RecipeFile,
    RequestsPerSecond,
    Strength,
    UrlColumn,
    UserAgent,
    make_recipe,
)
from pipeline.storage import require_place_of_report


def run(
    collection: Annotated[
        str,
        typer.Argument(metavar="COLLECTION", help="A folder, a quoted glob, a URL, or a manifest (csv, parquet …)."),
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
    strength: Strength = None,
    enlarge: Enlarge = None,
    keep_copyright: KeepCopyright = None,
    output: Annotated[
        str,
        typer.Option(
            metavar="|".join(OUTPUTS),
            help="A file an image, or tar shards of about 500 MB, for training with WebDataset.",
        ),
    ] = "files",
    force: Annotated[
        bool, typer.Option("--force", help="Make images again that are there already, of unchanged sources.")
    ] = False,
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Make only the first of images with the same bytes.")
    ] = False,
    job_id: Annotated[
        str | None, typer.Option(metavar="ID", help="A name of yours; the same again resumes or follows it.")
    ] = None,
    cluster: ClusterOption = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes of the local cluster (one a core).")] = None,
    url_column: UrlColumn = "url",
    key_column: KeyColumn = None,
    hash_column: HashColumn = None,
    carry_column: CarryColumns = None,
    allow_private: AllowPrivate = None,
    follow_links: FollowLinks = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="For one whole answer of a source.")] = 30.0,
    retries: Annotated[int, typer.Option(help="How often a source that may recover is asked again.")] = 2,
    connections_per_host: ConnectionsPerHost = 16,
    requests_per_second: RequestsPerSecond = None,
    ignore_robots: IgnoreRobots = False,
    user_agent: UserAgent = None,
    image_timeout: ImageTimeout = 10.0,
    image_memory: ImageMemory = 1024,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a report when it has ended.")] = None,
    dask_report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write Dask's own performance report too.")
    ] = None,
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
        "strength": strength,
        "enlarge": enlarge,
        "keep_copyright": keep_copyright,
    }
    if report:
        require_place_of_report(report)
    start = functools.partial(
        pipeline.run,
        collection,
        destination,
        make_recipe(recipe, options),
        output=cast(Output, output),
        force=force,
        deduplicate=deduplicate,
        job_id=job_id,
        cluster=cluster,
        workers=workers,
        url_column=url_column,
        key_column=key_column,
        hash_column=hash_column,
        carry_columns=carry_column or (),
        allow_private=allow_private,
        follow_links=follow_links,
        timeout=timeout,
        retries=retries,
        connections_per_host=connections_per_host,
        requests_per_second=requests_per_second,
        respect_robots=not ignore_robots,
        user_agent=user_agent,
        image_timeout=image_timeout,
        image_memory_mib=image_memory,
        dask_report=dask_report,
    )
    handle, progress = follow.run_or_follow(start, job_id, as_json=json)
    if report:
        handle.report(report)
        typer.echo(f"Report: {report}", err=json)
    raise typer.Exit(exits.code_of(progress))
