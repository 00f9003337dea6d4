"""What became of a job, on one page: an HTML file that needs no network and can be sent to anybody."""

from __future__ import annotations

import os
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.display.panel import render_text
from pipeline.display.report import facts
from pipeline.display.report.charts import draw_hosts, draw_rates, draw_speed, render_figures
from pipeline.display.style import COLOUR_BY_STAGE
from pipeline.display.templating import render
from pipeline.domain import Job, Progress, Recipe
from pipeline.errors import DestinationError
from pipeline.runner.failures import FailureGroup, group_failures
from pipeline.storage import open_folder, write_whole
from pipeline.urls import redact

if TYPE_CHECKING:
    import pandas as pd

# Of the frame in a notebook; the page in it scrolls.
_FRAME_PX: Final = 720


@dataclass(frozen=True, slots=True)
class Report:
    """How a job went, on one page; a notebook shows it.

    Attributes
    ----------
    html : str
        The page: it needs no network.
    text : str
        The same in a few lines.
    """

    html: str
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        # A frame of its own: neither style sheet disturbs the other, and its scripts run when the notebook is reopened.
        return render("frame.html", page=self.html, height_px=_FRAME_PX)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, whole: whoever looks sees this page, or what was there before.

        Raises
        ------
        DestinationError
            If it cannot be written.
        """
        try:
            _write(Path(path).resolve(), self.html)
        except OSError as error:
            raise DestinationError(f"cannot write the report {os.fspath(path)!r}: {error.strerror or error}") from error


def _write(path: Path, html: str) -> None:
    if path.exists() and not path.is_file():
        # A pipe, or /dev/stdout, cannot be replaced.
        path.write_text(html, encoding="utf-8")
    else:
        write_whole(*open_folder(os.fspath(path)), html.encode(), makes_folder=False)


def make_report(outcomes: pd.DataFrame, progress: Progress, job: Job) -> Report:
    """Make the report of a job.

    Parameters
    ----------
    outcomes : DataFrame
        The ledger, one row an image; it may be empty.
    progress : Progress
        The job's last snapshot.
    job : Job
    """
    groups = [FailureGroup(*row) for row in group_failures(outcomes).drop(columns="remedy").itertuples(index=False)]
    return Report(render_report(outcomes, progress, job), render_text(job, progress, groups))


def render_report(outcomes: pd.DataFrame, progress: Progress, job: Job) -> str:
    """Return the report of a job as one HTML page.

    What strangers wrote (URLs, messages) is escaped, and URLs are shown without their queries: those of signed URLs
    let whoever reads the page read the images.
    """
    timed = facts.of_latest_run(outcomes, progress)
    speed, hosts = facts.speed_over_time(timed, progress), facts.latency_by_host(timed)
    figures = {
        "speed": draw_speed(speed),
        "megapixels": draw_rates(speed, {"megapixels": COLOUR_BY_STAGE["enhance"]}, "megapixels/s"),
        "bytes": draw_rates(
            speed, {"megabytes_in": COLOUR_BY_STAGE["fetch"], "megabytes_out": COLOUR_BY_STAGE["store"]}, "MB/s"
        ),
        "hosts": draw_hosts(hosts),
    }
    scripts, chart_by_name = render_figures({name: figure for name, figure in figures.items() if figure is not None})
    return render(
        "report.html",
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
