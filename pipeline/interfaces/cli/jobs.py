"""Commands on any job, from any terminal."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

import pipeline
from pipeline.display.text import count_done, describe, name_collection, open_console, summary, write_json
from pipeline.domain import Progress
from pipeline.interfaces.cli import exits, follow
from pipeline.interfaces.cli.options import AsJson, ClusterOption, JobId


def jobs(
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20, json: AsJson = False
) -> None:
    """List the recent jobs."""
    handles = pipeline.jobs(limit)
    if json:
        for handle in handles:
            write_json(summary(handle.progress))
        return
    if not handles:
        typer.echo("No jobs yet: start one with `pipeline run COLLECTION DESTINATION`, or try `pipeline demo`.")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("Job", "Status", "Created", "Done", "Failed", "Collection"):
        table.add_column(name, no_wrap=True, justify="right" if name in {"Done", "Failed"} else "left")
    for handle in handles:
        progress = handle.progress
        table.add_row(
            handle.id,
            progress.status,
            _local_time(progress.created_at),
            count_done(progress),
            f"{progress.failed:,}",
            escape(name_collection(handle.job)),
        )
    open_console().print(table)


def status(job: JobId, json: AsJson = False) -> None:
    """Say how a job stands."""
    handle = pipeline.attach(job)
    if json:
        write_json(summary(handle.progress))
    else:
        typer.echo(f"{job} {describe(handle.progress)}")
        if handle.progress.error:
            typer.echo(handle.progress.error)


def watch(job: JobId, json: AsJson = False) -> None:
    """Show a running job's bars until it ends; Ctrl-C ends the looking, not the job."""
    _exit(follow.watch(pipeline.attach(job), as_json=json))


def cancel(job: JobId) -> None:
    """Stop a job, wherever it runs; it can be resumed."""
    handle = pipeline.attach(job)
    if handle.progress.is_finished:
        typer.echo(f"{job} has ended already: {describe(handle.progress)}")
        return
    handle.cancel()
    typer.echo(f"{job} {describe(handle.wait(follow.CANCEL_PATIENCE_S))}")


def retry(job: JobId, cluster: ClusterOption = None, json: AsJson = False) -> None:
    """Run a job's failed images again, here."""
    handle = pipeline.attach(job)
    handle.retry_failed(cluster=cluster)
    _exit(follow.drive(handle, as_json=json))


def resume(job: JobId, cluster: ClusterOption = None, json: AsJson = False) -> None:
    """Go on with a job that was interrupted, here: what its ledger has is not done again."""
    handle = pipeline.attach(job)
    handle.resume(cluster=cluster)
    _exit(follow.drive(handle, as_json=json))


def failures(job: JobId, json: AsJson = False) -> None:
    """List what failed, grouped by stage and error, with a remedy for each."""
    handle = pipeline.attach(job)
    if json:
        for group in handle.failures().to_dict("records"):
            write_json({str(name): value for name, value in group.items()})
    elif handle.progress.failed:
        follow.print_failures(handle, open_console())
    else:
        typer.echo(f"{job}: nothing has failed")


def _local_time(created_at: str) -> str:
    return datetime.fromisoformat(created_at).astimezone().strftime("%m-%d %H:%M")


def _exit(progress: Progress) -> None:
    raise typer.Exit(exits.code_of(progress))
