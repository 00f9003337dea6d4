"""Follow a job to its end, on any terminal; Ctrl-C stops the job or only the looking, as the command says."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.domain import Progress
from pipeline.interfaces.cli.views import choose_view, duration, short, summary, write_json
from pipeline.job import JobHandle

# How long a cancelled run is awaited: the driver's grace for images in hand, and the end of the workers.
CANCEL_PATIENCE_S = 20.0


def drive(handle: JobHandle, *, as_json: bool = False, can_retry: bool = True) -> Progress:
    """Show a job that runs in this process; Ctrl-C cancels it, cleanly.

    `can_retry` is whether its failed images are worth another try, which is then suggested.
    """
    console = Console(stderr=as_json)
    try:
        progress = _show(handle, console, as_json)
        handle.wait()
    except KeyboardInterrupt:
        if not as_json:
            console.print("\n[yellow]Stopping: the images in hand are finished first …[/]")
        handle.cancel()
        progress = handle.wait(CANCEL_PATIENCE_S)
    conclude(handle, progress, console, as_json=as_json, can_retry=can_retry)
    return progress


def watch(handle: JobHandle, *, as_json: bool = False) -> Progress:
    """Show a job that runs anywhere; Ctrl-C ends the looking, not the job."""
    console = Console(stderr=as_json)
    try:
        progress = _show(handle, console, as_json)
    except KeyboardInterrupt:
        console.print(f"\nThe job goes on; look again with [bold]pipeline watch {handle.id}[/].")
        raise
    conclude(handle, progress, console, as_json=as_json)
    return progress


def conclude(
    handle: JobHandle, progress: Progress, console: Console, *, as_json: bool = False, can_retry: bool = True
) -> None:
    """Say how a job ended, what failed and what to do next."""
    if as_json:
        write_json(summary(progress))
        return
    job_id = escape(handle.id)
    if progress.error:
        console.print(f"[bold red]error:[/] {escape(progress.error)}", highlight=False, soft_wrap=True)
    if progress.status in {"cancelled", "stalled", "failed"}:
        console.print(
            f"[yellow]{progress.done:,} images have an outcome; go on with[/] [bold]pipeline resume {job_id}[/]",
            highlight=False,
        )
        return
    skipped = f", {progress.skipped:,} skipped" if progress.skipped else ""
    console.print(
        f"[bold green]{progress.stored:,} stored[/]{skipped}"
        + (f", [bold red]{progress.failed:,} failed[/]" if progress.failed else "")
        + f" in {duration(progress.seconds)}, {progress.images_per_second:,.1f} images/s, "
        f"to {escape(short(handle.job.destination))}",
        highlight=False,
        soft_wrap=True,
    )
    if progress.failed:
        print_failures(handle, console)
    if progress.failed and can_retry:
        console.print(f"Run the failed ones again with [bold]pipeline retry {job_id}[/]", highlight=False)


def print_failures(handle: JobHandle, console: Console) -> None:
    """Print the failed images, grouped by stage and error, each group with an example and a remedy."""
    table = Table(title="What failed, and what to do", title_justify="left", title_style="bold", show_lines=True)
    table.add_column("Images", justify="right", no_wrap=True)
    table.add_column("Stage", no_wrap=True)
    table.add_column("Error", style="red", no_wrap=True)
    table.add_column("For example", overflow="fold")
    for group in handle.failures().to_dict("records"):
        example = Text(group["message"]).append(f"\n→ {group['remedy']}" if group["remedy"] else "", style="green")
        table.add_row(f"{group['count']:,}", group["stage"], group["error"], example)
    console.print(table)


def _show(handle: JobHandle, console: Console, as_json: bool) -> Progress:
    progress = handle.progress
    with choose_view(handle.job, console, as_json) as view:
        for progress in handle.updates():
            view.show(progress)
            if progress.status == "stalled":
                break
    return progress
