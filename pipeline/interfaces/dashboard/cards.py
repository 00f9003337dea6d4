"""A run as the page words it: pure functions from a snapshot and the scheduler's tasks to texts and shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.display.style import COLOUR_BY_STAGE
from pipeline.display.wording import format_bytes, format_seconds, has_eta, is_starting
from pipeline.domain import STAGES, Progress
from pipeline.errors import remedy_for
from pipeline.interfaces.dashboard.board import Run
from pipeline.interfaces.dashboard.queue import StageTasks, count_batches

# Lines of the chart; none is a stage's colour, since a line is a job.
COLOURS_OF_RUNS: Final = ("#0e7490", "#c2410c", "#a21caf", "#4d7c0f", "#475569")

REMEDY_IF_UNKNOWN: Final = "See the messages with `pipeline failures`."


@dataclass(frozen=True, slots=True)
class Bar:
    """How far a stage is: shares of the whole from 0 to 1, both 0 while the total is not known."""

    stage: str
    colour: str
    done: str
    total: str
    share_done: float
    share_failed: float
    failed: str


@dataclass(frozen=True, slots=True)
class Part:
    """A stage's share, 0 to 1, of all seconds of work."""

    stage: str
    colour: str
    share: float
    seconds: str


@dataclass(frozen=True, slots=True)
class FailedImages:
    """Images that failed of one error."""

    error: str
    count: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Card:
    """All that is said of a run."""

    job_id: str
    status: str
    colour: str
    has_ended: bool
    is_counted: bool
    note: str
    count: str
    percent: str
    facts: Sequence[tuple[str, str]]
    bars: Sequence[Bar]
    parts: Sequence[Part]
    failures: Sequence[FailedImages]
    tasks: Sequence[StageTasks]
    batches: int


def colour_of(run: Run) -> str:
    """Return the colour of a run's line in the chart."""
    return COLOURS_OF_RUNS[run.number % len(COLOURS_OF_RUNS)]


def make_card(run: Run, tasks: Sequence[StageTasks]) -> Card:
    """Word a run.

    Parameters
    ----------
    run : Run
    tasks : sequence of StageTasks
        As `count_tasks` finds them.
    """
    progress = run.progress
    return Card(
        job_id=progress.job_id,
        status=progress.status,
        colour=colour_of(run),
        has_ended=run.has_ended,
        is_counted=progress.total is not None,
        note=_note(progress),
        count=f"{progress.done:,} / {_total(progress)}",
        percent="" if progress.total is None else f"{progress.percent:.0f} %",
        facts=_facts(progress),
        bars=_bars(progress),
        parts=_parts(progress),
        failures=_failures(progress),
        tasks=[] if run.has_ended else tasks,
        batches=count_batches(tasks),
    )


def _note(progress: Progress) -> str:
    if progress.status == "stalled":
        return f"Its driver is gone. Go on with: pipeline resume {progress.job_id}"
    if progress.status == "cancelled":
        return f"What is stored stays. Go on with: pipeline resume {progress.job_id}"
    if progress.status == "failed":
        return f"{progress.error or 'The job failed'}. Why: pipeline status {progress.job_id}"
    if is_starting(progress):
        return "The workers start …"
    return ""


def _facts(progress: Progress) -> list[tuple[str, str]]:
    facts = [("images/s", f"{progress.images_per_second:,.1f}"), ("elapsed", format_seconds(progress.seconds))]
    if has_eta(progress):
        facts.append(("left", format_seconds(progress.eta_seconds or 0.0)))
    facts += [
        (name, f"{count:,}") for name, count in (("skipped", progress.skipped), ("failed", progress.failed)) if count
    ]
    facts += [("in", format_bytes(progress.bytes_in)), ("out", format_bytes(progress.bytes_out))]
    return facts


def _bars(progress: Progress) -> list[Bar]:
    bars = []
    for stage, done in progress.done_by_stage.items():
        failed = progress.failed_by_stage.get(stage, 0)
        # A retry may count more for a moment than there is.
        whole = max(progress.total or 0, done, 1)
        shares = (0.0, 0.0) if progress.total is None else ((done - failed) / whole, failed / whole)
        counts = (f"{done:,}", _total(progress))
        bars.append(Bar(stage, COLOUR_BY_STAGE[stage], *counts, *shares, f"{failed:,} failed" if failed else ""))
    return bars


def _parts(progress: Progress) -> list[Part]:
    seconds_by_stage = {stage: progress.seconds_by_stage.get(stage, 0.0) for stage in STAGES}
    whole_s = sum(seconds_by_stage.values())
    if not whole_s:
        return []
    return [
        Part(stage, COLOUR_BY_STAGE[stage], seconds / whole_s, format_seconds(seconds))
        for stage, seconds in seconds_by_stage.items()
        if stage in progress.done_by_stage
    ]


def _failures(progress: Progress) -> list[FailedImages]:
    return [
        FailedImages(error, f"{count:,}", remedy_for(error) or REMEDY_IF_UNKNOWN)
        for error, count in sorted(progress.failed_by_error.items(), key=lambda pair: -pair[1])
        if count
    ]


def _total(progress: Progress) -> str:
    return "?" if progress.total is None else f"{progress.total:,}"
