"""How a running job looks: bars on a terminal, lines in a log, JSON for a program."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.display.frontend import is_notebook
from pipeline.display.style import COLOUR_BY_STAGE
from pipeline.display.wording import format_bytes, format_seconds, has_eta, is_starting
from pipeline.domain import Job, Progress
from pipeline.urls import redact

# A log gets a line at most this often, and one whenever the status changes.
LINE_INTERVAL_S: Final = 5.0
JSON_INTERVAL_S: Final = 1.0

STARTING: Final = "starting the workers …"

# Where there is no terminal nobody's window limits a line, and whoever reads it with a program wants it whole.
_ENDLESS: Final = 10_000


class View(Protocol):
    """Shows the snapshots of one job, in a with-block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, progress: Progress) -> None:
        """Show a newer snapshot."""


class BarsView:
    """A bar a stage, on a terminal."""

    def __init__(self, job: Job, console: Console) -> None:
        self._job = job
        self._live = Live(console=console, refresh_per_second=12)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        """Redraw the bars."""
        self._live.update(render_bars(self._job, progress))


class _Pace:
    """Lets a snapshot pass if the last one is not recent, or says another status."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._status, self._seconds = "", -interval_s

    def allows(self, progress: Progress) -> bool:
        if progress.status == self._status and progress.seconds - self._seconds < self._interval_s:
            return False
        self._status, self._seconds = progress.status, progress.seconds
        return True


class _Stream:
    """What only writes has nothing to open and nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class SilentView(_Stream):
    """Shows nothing: whoever calls a function of a library looks at what it returns."""

    def show(self, progress: Progress) -> None:
        """Leave it."""


class LinesView(_Stream):
    """A line now and then, where there is no terminal."""

    def __init__(self, job: Job, console: Console) -> None:
        self._job = job
        self._console = console
        self._pace = _Pace(LINE_INTERVAL_S)

    def show(self, progress: Progress) -> None:
        """Print a line, unless the last one is recent and says the same status."""
        if self._pace.allows(progress):
            self._console.print(f"{self._job.id} {describe(progress)}", markup=False, highlight=False, soft_wrap=True)


class JsonView(_Stream):
    """JSON lines on standard output: snapshots, then a summary."""

    def __init__(self) -> None:
        self._pace = _Pace(JSON_INTERVAL_S)

    def show(self, progress: Progress) -> None:
        """Print a snapshot, unless the last one is recent and says the same status."""
        if self._pace.allows(progress):
            write_json(summary(progress) | {"done_by_stage": dict(progress.done_by_stage), "eta": progress.eta_seconds})


def open_console(*, stderr: bool = False) -> Console:
    """Open a console that wraps and crops nothing where there is no terminal."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_ENDLESS)


def open_terminal_view(job: Job) -> View:
    """Return bars where standard error is a terminal and no notebook; elsewhere a view that shows nothing."""
    console = Console(stderr=True)
    return BarsView(job, console) if console.is_terminal and not is_notebook() else SilentView()


def choose_view(job: Job, console: Console, as_json: bool) -> View:
    """Choose the view that fits where the output goes."""
    if as_json:
        return JsonView()
    return BarsView(job, console) if console.is_terminal else LinesView(job, console)


def summary(progress: Progress) -> dict[str, Any]:
    """Return the fields that the last JSON line promises."""
    return {
        "job_id": progress.job_id,
        "status": progress.status,
        "total": progress.total,
        "stored": progress.stored,
        "skipped": progress.skipped,
        "failed": progress.failed,
        "seconds": round(progress.seconds, 3),
        "images_per_second": round(progress.images_per_second, 2),
    }


def write_json(value: dict[str, Any]) -> None:
    """Write one JSON line to standard output."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def describe(progress: Progress) -> str:
    """Say in one line how a job stands."""
    if is_starting(progress):
        return f"{progress.status}: {STARTING}"
    parts = [f"{progress.status}: {count_done(progress)}"]
    if progress.skipped:
        parts.append(f"{progress.skipped:,} skipped")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if progress.images_per_second:
        parts.append(f"{progress.images_per_second:,.1f} images/s")
    return ", ".join([*parts, *_time_left(progress)])


def count_done(progress: Progress) -> str:
    """Say how many images have an outcome, and of how many: ``1,200 of 4,000``, ``1,200 of ?``."""
    return f"{progress.done:,} of {_total(progress)}"


def name_collection(job: Job) -> str:
    """Say what a job's collection is, briefly: a list given in Python or by the demo has no name of its own."""
    kept = f"{job.destination.rstrip('/')}/_ledger/"
    return "a list" if job.collection.startswith(kept) else short(redact(job.collection))


def name_destination(job: Job) -> str:
    """Say where a job's results go, without a secret that the URL may hold."""
    return short(redact(job.destination))


def short(place: str) -> str:
    """Write a local path as seen from here, if it lies below; other places as they are."""
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else place


def render_bars(job: Job, progress: Progress) -> RenderableType:
    """Draw a job: a bar a stage, and how fast it goes."""
    bars = Table.grid(padding=(0, 1))
    for justify in ("left", "left", "right", "right", "left"):
        bars.add_column(justify=justify)
    for stage, done in progress.done_by_stage.items():
        failed = progress.failed_by_stage.get(stage, 0)
        color = COLOUR_BY_STAGE[stage]
        bars.add_row(
            Text("  " + stage, style=color),
            ProgressBar(total=progress.total, completed=done, width=36, complete_style=color, finished_style=color),
            Text(f"{done:,}", style="bold"),
            Text(f"/ {_total(progress)}", style="dim"),
            Text(f"{failed:,} failed" if failed else "", style="red"),
        )
    return Group(_heading(job, progress), bars, _speed(progress))


def _heading(job: Job, progress: Progress) -> Text:
    style = {"completed": "bold green", "failed": "bold red", "cancelled": "bold yellow", "stalled": "bold yellow"}
    return Text.assemble(
        (progress.status, style.get(progress.status, "bold")),
        f"  {job.id}  ",
        (f"{name_collection(job)} → {name_destination(job)}", "dim"),
    )


def _total(progress: Progress) -> str:
    return "?" if progress.total is None else f"{progress.total:,}"


def _time_left(progress: Progress) -> list[str]:
    """Say how long it will take, if that is known."""
    return [f"{format_seconds(progress.eta_seconds or 0.0)} left"] if has_eta(progress) else []


def _speed(progress: Progress) -> Text:
    if is_starting(progress):
        return Text(f"  {STARTING}", style="dim")
    speed = Text("  ")
    speed.append(f"{progress.images_per_second:,.1f} images/s", style="bold")
    speed.append(f"  {format_seconds(progress.seconds)}", style="dim")
    for left in _time_left(progress):
        speed.append(f"  {left}", style="dim")
    return speed.append(f"  {format_bytes(progress.bytes_in)} in, {format_bytes(progress.bytes_out)} out", style="dim")
