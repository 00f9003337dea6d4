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

from pipeline.domain import Job, Progress
from pipeline.interfaces.style import COLOUR_BY_STAGE

# A log gets a line at most this often, and one whenever the status changes.
LINE_INTERVAL_S: Final = 5.0
JSON_INTERVAL_S: Final = 1.0


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
        self._live = Live(
            Text(f"Job {job.id}: starting the workers …", style="dim"), console=console, refresh_per_second=12
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        """Redraw the bars."""
        self._live.update(render_bars(self._job, progress))


class LinesView:
    """A line now and then, where there is no terminal."""

    def __init__(self, job: Job, console: Console) -> None:
        self._job = job
        self._console = console
        self._shown: tuple[str, float] = ("", -LINE_INTERVAL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, progress: Progress) -> None:
        """Print a line, unless the last one is recent and says the same status."""
        status, seconds = self._shown
        if progress.status != status or progress.seconds - seconds >= LINE_INTERVAL_S:
            self._console.print(f"{self._job.id} {describe(progress)}", markup=False, highlight=False, soft_wrap=True)
            self._shown = (progress.status, progress.seconds)


class JsonView:
    """JSON lines on standard output: snapshots, then a summary."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._shown: tuple[str, float] = ("", -JSON_INTERVAL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, progress: Progress) -> None:
        """Print a snapshot, unless the last one is recent and says the same status."""
        status, seconds = self._shown
        if progress.status != status or progress.seconds - seconds >= JSON_INTERVAL_S:
            write_json(summary(progress) | {"done_by_stage": dict(progress.done_by_stage), "eta": progress.eta_seconds})
            self._shown = (progress.status, progress.seconds)


def choose_view(job: Job, console: Console, as_json: bool) -> View:
    """Choose the view that fits where the output goes."""
    if as_json:
        return JsonView(job)
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
    total = "?" if progress.total is None else f"{progress.total:,}"
    parts = [f"{progress.status}: {progress.done:,} of {total}"]
    if progress.skipped:
        parts.append(f"{progress.skipped:,} skipped")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    parts.append(f"{progress.images_per_second:,.1f} images/s")
    if progress.eta_seconds is not None:
        parts.append(f"{duration(progress.eta_seconds)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Write a number of seconds as people do: ``0.4 s``, ``42 s``, ``3:05``, ``1:02:03``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def size(count: float) -> str:
    """Write a number of bytes as people do: ``512 B``, ``2.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


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
            Text(f"/ {progress.total:,}" if progress.total is not None else "/ ?", style="dim"),
            Text(f"{failed:,} failed" if failed else "", style="red"),
        )
    return Group(_heading(job, progress), bars, _speed(progress))


def _heading(job: Job, progress: Progress) -> Text:
    style = {"completed": "bold green", "failed": "bold red", "cancelled": "bold yellow", "stalled": "bold yellow"}
    is_list = job.collection.startswith(job.destination)
    return Text.assemble(
        (progress.status, style.get(progress.status, "bold")),
        f"  {job.id}  ",
        (f"{'a list' if is_list else short(job.collection)} → {short(job.destination)}", "dim"),
    )


def _speed(progress: Progress) -> Text:
    speed = Text("  ")
    speed.append(f"{progress.images_per_second:,.1f} images/s", style="bold")
    speed.append(f"  {duration(progress.seconds)}", style="dim")
    if progress.eta_seconds is not None:
        speed.append(f"  {duration(progress.eta_seconds)} left", style="dim")
    return speed.append(f"  {size(progress.bytes_in)} in, {size(progress.bytes_out)} out", style="dim")
