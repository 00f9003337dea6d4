"""Recent jobs as a table in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.display.templating import render
from pipeline.display.text import describe, name_collection
from pipeline.domain import Job, Progress
from pipeline.urls import redact


class JobList(list[Any]):
    """Handles on jobs, the newest first; a notebook shows them as a table.

    Parameters
    ----------
    handles : iterable of JobHandle
    states : iterable of (Job, Progress)
        What the table shows of each: how they stood when the list was made.
    """

    def __init__(self, handles: Iterable[Any], states: Iterable[tuple[Job, Progress]]) -> None:
        super().__init__(handles)
        self._states = tuple(states)

    def __repr__(self) -> str:
        return "\n".join(f"{job.id}  {describe(progress)}" for job, progress in self._states) or "no jobs yet"

    def _repr_html_(self) -> str:
        rows = [
            {"job": job, "progress": progress, "collection": name_collection(job), "to": redact(job.destination)}
            for job, progress in self._states
        ]
        return render("jobs.html", rows=rows)
