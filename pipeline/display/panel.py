"""A job as HTML: the parts of the live widget, and the snapshot that stays readable without a kernel."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console

from pipeline.display.templating import find_template
from pipeline.display.text import name_collection, name_destination, render_bars
from pipeline.display.wording import has_eta, is_starting
from pipeline.domain import Job, Progress
from pipeline.runner.failures import FailureGroup

# A notebook's output area, in characters.
_TEXT_WIDTH: Final = 110

Pictures = Sequence[tuple[str, str]]


def mark_of(job: Job) -> str:
    """Return what a style sheet calls a job: an id may have signs that CSS reads otherwise."""
    return hashlib.blake2b(job.id.encode(), digest_size=6).hexdigest()


def render_part(name: str, *values: Any) -> str:
    """Render a part of the live widget, with the style sheet's class around it."""
    part = getattr(find_template("job.html").module, name)(*values)
    return f'<div class="pipeline-job">{part}</div>'


def render_sheet() -> str:
    """Render the style sheet that the parts need once."""
    return str(find_template("job.html").module.sheet())  # type: ignore[attr-defined]


def render_heading(job: Job, progress: Progress) -> str:
    """Render how a job stands, its id, and what goes where."""
    return render_part("heading", job, progress, name_collection(job), name_destination(job))


def render_tally(done: int, total: int | None, failed: int) -> str:
    """Render how many images have left a stage."""
    return render_part("tally", done, total, failed)


def render_speed(progress: Progress) -> str:
    """Render how fast it goes and how long it will take."""
    return render_part("speed", progress, is_starting(progress), has_eta(progress))


def render_failures(groups: Sequence[FailureGroup]) -> str:
    """Render what failed, why, and what to do; nothing if nothing did."""
    return render_part("failures", groups) if groups else ""


def render_strip(pictures: Pictures) -> str:
    """Render the latest results, each a place and the ``data:`` URL of its thumbnail."""
    return render_part("strip", pictures) if pictures else ""


def render_snapshot(
    job: Job, progress: Progress, groups: Sequence[FailureGroup] = (), pictures: Pictures = ()
) -> dict[str, str]:
    """Render a whole job as it stands, by MIME type: HTML, and text for where there is none.

    The HTML hides itself beside the live widget of the same job.
    """
    html = find_template("job.html").module.snapshot(  # type: ignore[attr-defined]
        job,
        progress,
        name_collection(job),
        name_destination(job),
        is_starting(progress),
        has_eta(progress),
        groups,
        pictures,
        mark_of(job),
        f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
    )
    return {"text/html": str(html), "text/plain": render_text(job, progress, groups)}


def render_text(job: Job, progress: Progress, groups: Sequence[FailureGroup] = ()) -> str:
    """Render a job as plain text, as a terminal shows it."""
    console = Console(file=io.StringIO(), width=_TEXT_WIDTH, color_system=None, force_jupyter=False)
    with console.capture() as capture:
        console.print(render_bars(job, progress))
        for group in groups:
            console.print(
                f"  {group.count:,} failed in {group.stage}: {group.error}: {group.message} -> {group.remedy}",
                markup=False,
                soft_wrap=True,
            )
    return capture.get().rstrip()
