"""A job in a notebook: live where somebody looks on, to its end where nobody does."""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import Final

from pipeline.display.frontend import current_cell, is_attended, publish
from pipeline.display.panel import render_snapshot
from pipeline.display.thumbnails import make_pictures
from pipeline.display.widget import STRIP_IMAGES, THUMBNAIL_PX, JobPanel, Watched
from pipeline.domain import Progress
from pipeline.errors import LedgerError, StateError
from pipeline.runner.tail import Latest

# Each change becomes part of the executed notebook's log.
_UNATTENDED_INTERVAL_S: Final = 1.0

_panel_by_job: Final[dict[str, JobPanel]] = {}

# The cells, and the jobs that they have shown.
_shown_to_the_end: Final[set[tuple[str, str]]] = set()


def show_job(watched: Watched) -> None:
    """Show a job in this notebook.

    Where somebody may press its buttons, a widget that lives on after this returns. Where nobody does (papermill,
    nbconvert), a picture of its bars until it ends, and only then does this return: the next cell may need its
    results, and after the last one the kernel ends.
    """
    if is_attended():
        _panel_of(watched).show()
    elif (cell := (current_cell(), watched.job.id)) not in _shown_to_the_end:
        _shown_to_the_end.add(cell)
        _show_to_the_end(watched)


def _panel_of(watched: Watched) -> JobPanel:
    """Return the one widget of a job, so that not every look at it has threads and connections of its own."""
    panel = _panel_by_job.get(watched.job.id)
    if panel is None or (panel.watched is not watched and watched.goes_on):
        if panel:
            panel.close()
        panel = _panel_by_job[watched.job.id] = JobPanel(watched)
    return panel


def _show_to_the_end(watched: Watched) -> None:
    display_id = uuid.uuid4().hex
    shown = watched.progress
    publish(render_snapshot(watched.job, shown), display_id)
    shown_at_s = time.monotonic()
    latest = shown
    # What goes on without Redis goes on without being shown.
    with contextlib.suppress(StateError):
        for latest in watched.updates():
            if latest.status == "stalled":
                break
            if time.monotonic() - shown_at_s > _UNATTENDED_INTERVAL_S:
                publish(render_snapshot(watched.job, latest), display_id, is_update=True)
                shown_at_s = time.monotonic()
    _show_end(watched, latest, display_id)


def _show_end(watched: Watched, latest: Progress, display_id: str) -> None:
    found = Latest()
    with contextlib.suppress(LedgerError):
        found = watched.tail(STRIP_IMAGES).read()
    pictures = make_pictures(found.outputs, THUMBNAIL_PX, watched.storage_options)
    publish(render_snapshot(watched.job, latest, found.failures, pictures), display_id, is_update=True)
