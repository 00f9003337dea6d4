"""The list of commands, and what they have in common: exit codes, and errors in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

import pipeline
from pipeline.errors import PipelineError
from pipeline.interfaces.cli import bench, demo, exits, jobs, models, plan, run, serve

app = typer.Typer(
    name="pipeline",
    help="Fetch, resize, enhance and store whole collections of images.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in {
    "Run": (run.run, demo.demo, plan.plan, bench.bench),
    "Jobs": (jobs.jobs, jobs.status, jobs.watch, jobs.cancel, jobs.retry, jobs.resume, jobs.failures),
    "Service": (serve.serve, serve.work),
    "Models": (models.models, models.train, models.evaluate),
}.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def run_app(arguments: Sequence[str], name: str | None = None) -> int:
    """Run one command line; return its exit code. Its help calls the program `name`, or as it was called."""
    try:
        return app(arguments, prog_name=name, standalone_mode=False) or exits.OK
    except typer.TyperException as error:
        context: typer.Context | None = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context else ""
        _print_error(error.format_message().rstrip(".") + hint)
        return exits.USAGE
    except PipelineError as error:
        _print_error(str(error))
        return exits.code_of(error)


def _print_error(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False)


@app.callback()
def common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Fetch, resize, enhance and store whole collections of images."""
    if version:
        typer.echo(pipeline.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(exits.USAGE)
