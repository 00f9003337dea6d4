"""What became of a job, on one page: an HTML file that needs no network and can be sent to anybody."""

from __future__ import annotations

from collections.abc import Hashable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined

from pipeline.display import style
from pipeline.display.report import facts
from pipeline.display.report.charts import draw_hosts, draw_speed, render_figures
from pipeline.domain import Job, Progress, Recipe
from pipeline.errors import DestinationError
from pipeline.runner.failures import group_failures
from pipeline.urls import redact

if TYPE_CHECKING:
    import pandas as pd


def write_report(outcomes: pd.DataFrame, progress: Progress, job: Job, path: Path) -> None:
    """Write the report of a job.

    Parameters
    ----------
    outcomes : DataFrame
        The ledger, one row an image; it may be empty.
    progress : Progress
        The job's last snapshot.
    job : Job
    path : Path
        The HTML file.

    Raises
    ------
    DestinationError
        If the file cannot be written.
    """
    page = render_report(outcomes, progress, job)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DestinationError(f"cannot write the report {str(path)!r}: {error.strerror or error}") from error


def render_report(outcomes: pd.DataFrame, progress: Progress, job: Job) -> str:
    """Return the report of a job as one HTML page.

    What strangers wrote (URLs, messages) is escaped, and URLs are shown without their queries: those of signed URLs
    let whoever reads the page read the images.
    """
    timed = facts.of_latest_run(outcomes, progress)
    speed, hosts = facts.speed_over_time(timed, progress), facts.latency_by_host(timed)
    figures = {
        name: figure
        for name, figure in (("speed", draw_speed(speed)), ("hosts", draw_hosts(hosts)))
        if figure is not None
    }
    scripts, chart_by_name = render_figures(figures)
    # Whatever is put into the page is escaped unless the page says otherwise.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(files(__name__).joinpath("page.html").read_text(encoding="utf-8"))
    return page.render(
        job=job,
        progress=progress,
        collection=redact(job.collection),
        destination=redact(job.destination),
        recipe=describe_recipe(job.recipe),
        tiles=facts.totals(outcomes, progress),
        stages=facts.stage_times(timed, job.recipe),
        advice=facts.advise(timed, progress, job.recipe),
        failures=_shown_failures(outcomes),
        hosts_left_out=hosts.attrs.get("left_out", 0),
        charts=chart_by_name,
        scripts=scripts,
        colours={**style.COLOUR_BY_STAGE, "failed": style.COLOUR_FAILED},
    )


def describe_recipe(recipe: Recipe) -> str:
    """Return a Recipe in a line, as people say it."""
    encoded = recipe.format if recipe.format == "png" else f"{recipe.format}, quality {recipe.quality}"
    steps = [f"{recipe.fit} {recipe.max_width} × {recipe.max_height}"]
    if recipe.enhance:
        steps.append(f"enhance {recipe.enhance}")
    return " · ".join([*steps, encoded])


def _shown_failures(outcomes: pd.DataFrame) -> list[dict[Hashable, Any]]:
    groups = group_failures(outcomes)
    return groups.assign(example=groups["example"].map(redact)).to_dict("records")
