"""The live widget of a job in a notebook.

Three threads feed it, so that a busy kernel does not stop it and it never keeps the kernel busy: one hears the job's
updates, one shows the latest of them a few times a second, one looks into the ledger for failures and results.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from ipywidgets import HTML, Button, FloatProgress, GridBox, HBox, Layout, VBox

from pipeline.display import panel
from pipeline.display.frontend import current_cell, publish
from pipeline.display.style import COLOUR_BY_STAGE
from pipeline.display.thumbnails import make_pictures
from pipeline.domain import Job, Progress, Stage
from pipeline.errors import JobNotFoundError, LedgerError, PipelineError, StateError
from pipeline.runner.tail import Latest, LedgerTail

# More a second would fill the kernel's channel, and nobody could read them.
PAINT_INTERVAL_S: Final = 0.3

LOOK_INTERVAL_S: Final = 3.0
STRIP_IMAGES: Final = 8

# Cells that show one job and are kept up to date; older ones have most often been run again.
MOST_SNAPSHOTS: Final = 3

THUMBNAIL_PX: Final = 144

_WIDGET_VIEW: Final = "application/vnd.jupyter.widget-view+json"


class Watched(Protocol):
    """What a widget needs of a job: what it shows, and what its buttons do."""

    job: Job
    storage_options: Mapping[str, Any] | None
    # Called whenever the job is run anew in this process.
    on_start: Callable[[], None]

    @property
    def goes_on(self) -> bool:
        """Whether a run of this process works on it."""

    @property
    def progress(self) -> Progress:
        """The job as it is now."""

    def updates(self) -> Iterator[Progress]:
        """Yield the job as it is now, then as it changes, up to its end."""

    def tail(self, most_outputs: int) -> LedgerTail:
        """Return what follows its ledger."""

    def cancel(self) -> Progress:
        """Stop it."""

    def retry_failed(self) -> Progress:
        """Go on with what is left and what failed."""


class JobPanel:
    """Bars, speed, failures, latest results and buttons of one job.

    Parameters
    ----------
    watched : Watched

    Attributes
    ----------
    box : ipywidgets.VBox
    bars : dict of str to ipywidgets.FloatProgress
        By stage; ``value`` and ``max`` are images.
    """

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        job = watched.job
        self.heading, self.speed, self.failures, self.strip, self.note = (HTML() for _ in range(5))
        self.bars = {stage: _make_bar(stage) for stage in job.recipe.stages}
        self.tallies: dict[Stage, HTML] = {stage: HTML() for stage in job.recipe.stages}
        self.cancel_button = Button(icon="stop", description="Cancel", tooltip="What is stored stays")
        self.retry_button = Button(icon="repeat", description="Retry")
        self.cancel_button.on_click(lambda _: self._act(self.watched.cancel, "stopping: images in hand are finished"))
        self.retry_button.on_click(lambda _: self._act(self.watched.retry_failed, "starting …"))
        rows = [cell for stage, bar in self.bars.items() for cell in (_make_name(stage), bar, self.tallies[stage])]
        self.box = VBox(
            [
                HTML(panel.render_sheet(), layout=Layout(display="none")),
                self.heading,
                GridBox(rows, layout=Layout(grid_template_columns="72px minmax(80px, 320px) 1fr", grid_gap="0 12px")),
                self.speed,
                HBox([self.cancel_button, self.retry_button, self.note], layout=Layout(flex_flow="row wrap")),
                self.failures,
                self.strip,
            ]
        )
        for name in ("pipeline-live", f"pipeline-live-{panel.mark_of(job)}"):
            self.box.add_class(name)
        self._latest = watched.progress
        self._found = Latest()
        self._pictures: panel.Pictures = ()
        self._snapshot_ids: list[str] = []
        self._shown_in = ""
        self._follower: _Follower | None = None
        self._published: tuple[Progress, Latest] | None = None
        watched.on_start = self.follow_anew
        self._paint(self._latest)

    def show(self) -> None:
        """Display the widget here, unless this run of the cell has done so, and follow the job to its end."""
        cell = current_cell()
        if cell and cell == self._shown_in:
            return
        self._shown_in = cell
        self._snapshot_ids.append(uuid.uuid4().hex)
        publish(self._snapshot(), self._snapshot_ids[-1])
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        publish({_WIDGET_VIEW: view, "text/plain": ""})
        self.follow()

    def follow(self) -> None:
        """Follow the job to its end, if nothing does; returns at once."""
        if self._follower is None or self._follower.is_over.is_set():
            self._follower = _Follower(self.watched, self._paint, self._fill, self._tell)
            self._follower.start()

    def follow_anew(self) -> None:
        """Follow the run that has just begun; what followed the one before may not have noticed its end yet."""
        if self._follower:
            self._follower.supersede()
            self.follow()

    def close(self) -> None:
        """Follow the job no longer."""
        if self._follower:
            self._follower.supersede()

    def join(self, timeout_s: float) -> bool:
        """Wait until all is shown that the job's end brought; whether it is."""
        return self._follower is None or self._follower.has_ended.wait(timeout_s)

    def _paint(self, progress: Progress) -> None:
        """Show a snapshot of the job; only what has changed is sent."""
        if progress.status != self._latest.status:
            # What was said of the status before.
            self._tell("")
        self._latest = progress
        for stage, bar in self.bars.items():
            done = progress.done_by_stage.get(stage, 0)
            bar.max, bar.value = progress.total or max(1, done), done
            failed = progress.failed_by_stage.get(stage, 0)
            self.tallies[stage].value = panel.render_tally(done, progress.total, failed)
        self.speed.value = panel.render_speed(progress)
        is_running = progress.status in {"queued", "processing"}
        self.cancel_button.layout.display = "" if is_running else "none"
        self.retry_button.layout.display = "none" if is_running or not _can_go_on(progress) else ""
        self.retry_button.description = "Retry failed" if progress.status == "completed" else "Resume"
        self.retry_button.tooltip = "Run what is left" + (" and what failed" if progress.failed else "")
        # Last: whoever sees a new status sees what belongs to it.
        self.heading.value = panel.render_heading(self.watched.job, progress)

    def _fill(self, found: Latest) -> None:
        """Show what the ledger says, and keep the snapshot of the notebook up to date."""
        if found.outputs != self._found.outputs:
            self._pictures = make_pictures(found.outputs, THUMBNAIL_PX, self.watched.storage_options)
            self.strip.value = panel.render_strip(self._pictures)
        self._found = found
        self.failures.value = panel.render_failures(found.failures)
        if self._published != (self._latest, found):
            self._published = (self._latest, found)
            for display_id in self._snapshot_ids[-MOST_SNAPSHOTS:]:
                publish(self._snapshot(), display_id, is_update=True)

    def _snapshot(self) -> dict[str, str]:
        return panel.render_snapshot(self.watched.job, self._latest, self._found.failures, self._pictures)

    def _tell(self, message: str) -> None:
        self.note.value = panel.render_part("told", message) if message else ""

    def _act(self, action: Callable[[], object], message: str) -> None:
        """Do what a button says, in a thread: the kernel goes on."""
        self.cancel_button.disabled = self.retry_button.disabled = True
        self._tell(message)
        threading.Thread(target=self._do, args=[action], name="pipeline-button", daemon=True).start()

    def _do(self, action: Callable[[], object]) -> None:
        try:
            action()
            self.follow()
        except PipelineError as error:
            self._tell(str(error))
        finally:
            self.cancel_button.disabled = self.retry_button.disabled = False


class _Follower:
    """The threads that follow one run of a job."""

    def __init__(
        self,
        watched: Watched,
        paint: Callable[[Progress], None],
        fill: Callable[[Latest], None],
        tell: Callable[[str], None],
    ) -> None:
        self.is_over, self.has_ended = threading.Event(), threading.Event()
        self._is_superseded = threading.Event()
        self._watched = watched
        self._paint, self._fill, self._tell = paint, fill, tell
        self._tail = watched.tail(STRIP_IMAGES)
        self._latest: Progress | None = None
        self._has_news, self._is_painted = threading.Event(), threading.Event()

    def start(self) -> None:
        """Start the threads, which end with the job's run."""
        for step in (self._hear, self._show, self._look):
            threading.Thread(target=step, name=f"pipeline-widget{step.__name__}", daemon=True).start()

    def supersede(self) -> None:
        """Show nothing more: another one follows the job from now on."""
        self._is_superseded.set()
        self.is_over.set()
        self._has_news.set()

    def _hear(self) -> None:
        while not self.is_over.is_set():
            try:
                for progress in self._watched.updates():
                    if self.is_over.is_set():
                        break
                    self._latest = progress
                    self._has_news.set()
                self.is_over.set()
            except JobNotFoundError as error:
                self._tell(str(error))
                self.is_over.set()
            except StateError as error:
                self._tell(str(error))
                self.is_over.wait(LOOK_INTERVAL_S)
        self._has_news.set()

    def _show(self) -> None:
        is_over = False
        try:
            while not is_over:
                self._has_news.wait()
                self._has_news.clear()
                # In this order: what came before the end is painted in any case.
                is_over = self.is_over.is_set()
                if self._latest and not self._is_superseded.is_set():
                    self._paint(self._latest)
                if not is_over:
                    time.sleep(PAINT_INTERVAL_S)
        finally:
            self._is_painted.set()

    def _look(self) -> None:
        found, problem, is_painted = Latest(), "", False
        try:
            while not is_painted and not self._is_superseded.is_set():
                is_painted = self._is_painted.wait(LOOK_INTERVAL_S)
                before = problem
                try:
                    found, problem = self._tail.read(), ""
                except LedgerError as error:
                    problem = str(error)
                if not self._is_superseded.is_set():
                    if problem != before:
                        self._tell(problem)
                    self._fill(found)
        finally:
            self.has_ended.set()


def _make_bar(stage: Stage) -> FloatProgress:
    bar = FloatProgress(min=0, max=1, layout=Layout(width="auto", margin="6px 0", height="14px"))
    bar.style.bar_color = COLOUR_BY_STAGE[stage]
    return bar


def _make_name(stage: Stage) -> HTML:
    return HTML(panel.render_part("name", stage))


def _can_go_on(progress: Progress) -> bool:
    return progress.failed > 0 or progress.status in {"cancelled", "failed", "stalled"}
