"""Follow a job to its end, on any terminal; Ctrl-C stops the job or only the looking, as the command says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

import pipeline
from pipeline.display.text import choose_view, count_done, open_console, short, summary, write_json
from pipeline.display.wording import format_seconds
from pipeline.domain import Progress
from pipeline.errors import JobRunningError
from pipeline.job import JobHandle

# How long a cancelled run is awaited: the driver's grace for images in hand, and the end of the workers.
CANCEL_PATIENCE_S: Final = 20.0


def run_or_follow(
    start: Callable[[], JobHandle], job_id: str | None, *, as_json: bool = False
) -> tuple[JobHandle, Progress]:
    """Run a job here or, while another process runs it, follow it: what comes next may rely on its end.

    Should that process die, this one goes on with the job. Ctrl-C stops a job that runs here, or else the following.
    """
    console = open_console(stderr=as_json)
    while True:
        try:
            handle = start()
        except JobRunningError:
            if job_id is None:
                raise
        else:
            return handle, drive(handle, as_json=as_json)
        handle = pipeline.attach(job_id)
        console.print(f"{job_id} is being run by another process already: following it", markup=False, highlight=False)
        progress = _look_on(handle, console, as_json)
        if progress.status != "stalled":
            conclude(handle, progress, console, as_json=as_json)
            return handle, progress
        console.print(f"{job_id} has lost that process: going on with it here", markup=False, highlight=False)


def drive(handle: JobHandle, *, as_json: bool = False, is_repeatable: bool = True) -> Progress:
    """Show a job that runs in this process; Ctrl-C cancels it, cleanly.

    `is_repeatable` is whether its source will still be there afterwards, so that it is worth going on with.
    """
    console = open_console(stderr=as_json)
    try:
        progress = _show(handle, console, as_json)
        handle.join()
    except KeyboardInterrupt:
        if not as_json:
            console.print("[yellow]Stopping: the images in hand are finished first …[/]")
        handle.cancel()
        handle.join(CANCEL_PATIENCE_S)
        progress = handle.progress
    conclude(handle, progress, console, as_json=as_json, is_repeatable=is_repeatable)
    return progress


def watch(handle: JobHandle, *, as_json: bool = False) -> Progress:
    """Show a job that runs anywhere; Ctrl-C ends the looking, not the job."""
    console = open_console(stderr=as_json)
    progress = _look_on(handle, console, as_json)
    conclude(handle, progress, console, as_json=as_json)
    return progress


def conclude(
    handle: JobHandle, progress: Progress, console: Console, *, as_json: bool = False, is_repeatable: bool = True
) -> None:
    """Say how a job ended, what failed and what to do next."""
    if as_json:
        write_json(summary(progress))
        return
    if progress.error:
        console.print(f"[bold red]error:[/] {escape(progress.error)}", highlight=False, soft_wrap=True)
    if progress.status == "completed":
        _conclude_completed(handle, progress, console, is_repeatable)
        return
    go_on = f"; go on with [bold]pipeline resume {escape(handle.id)}[/]" if is_repeatable else ""
    console.print(
        f"[yellow]{progress.status}[/] with {count_done(progress)} images done{go_on}", highlight=False, soft_wrap=True
    )


def _conclude_completed(handle: JobHandle, progress: Progress, console: Console, is_repeatable: bool) -> None:
    skipped = f", {progress.skipped:,} skipped" if progress.skipped else ""
    failed = f", [bold red]{progress.failed:,} failed[/]" if progress.failed else ""
    duplicates = f", {progress.duplicates:,} of them duplicates" if progress.duplicates else ""
    console.print(
        f"[bold green]{progress.stored:,} stored[/]{skipped}{failed}{duplicates} "
        f"in {format_seconds(progress.seconds)}, {progress.images_per_second:,.1f} images/s, "
        f"to {escape(short(handle.job.destination))}",
        highlight=False,
        soft_wrap=True,
    )
    if not progress.failed:
        return
    print_failures(handle, console)
    if is_repeatable:
        console.print(f"Run the failed ones again with [bold]pipeline retry {escape(handle.id)}[/]", highlight=False)


def print_failures(handle: JobHandle, console: Console) -> None:
    """Print the failed images, grouped by stage and error, each group with an example and a remedy.

    A table on a terminal; elsewhere a line a group.
    """
    groups = handle.failures().to_dict("records")
    if not console.is_terminal:
        for group in groups:
            remedy = f" -> {group['remedy']}" if group["remedy"] else ""
            line = f"{group['count']} failed in {group['stage']}: {group['error']}: {group['message']}{remedy}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2, 1, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for group in groups:
        lines = Text.assemble((group["error"], "bold red"), f" in {group['stage']}\n", group["message"])
        table.add_row(Text(f"{group['count']:,}", style="bold"), lines.append(f"\n→ {group['remedy']}", style="green"))
    console.print("\n[bold]What failed, for example, and what to do[/]\n", table)


def _look_on(handle: JobHandle, console: Console, as_json: bool) -> Progress:
    try:
        return _show(handle, console, as_json)
    except KeyboardInterrupt:
        console.print(f"The job goes on; look again with [bold]pipeline watch {escape(handle.id)}[/]", highlight=False)
        raise


def _show(handle: JobHandle, console: Console, as_json: bool) -> Progress:
    progress = handle.progress
    with choose_view(handle.job, console, as_json) as view:
        for progress in handle.updates():
            view.show(progress)
            if progress.status == "stalled":
                break
    return progress
