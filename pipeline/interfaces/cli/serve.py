"""``pipeline serve`` and ``pipeline work``: the service, and its queue workers."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline.display.text import open_console
from pipeline.errors import DestinationError, SettingsError
from pipeline.interfaces.cli.options import AllowPrivate, ClusterOption
from pipeline.settings import Settings
from pipeline.state import connect

JobsAtOnce = Annotated[int, typer.Option("--jobs", min=1, max=64, help="How many jobs run at a time.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes of the local cluster (one a core).")]


def serve(
    destination: Annotated[
        Path, typer.Option("--destination", metavar="DIR", envvar="PIPELINE_DESTINATION", help="Where results go.")
    ] = Path("pipeline-results"),
    host: Annotated[str, typer.Option(envvar="PIPELINE_HOST", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="PIPELINE_PORT", help="The port to listen on; 0 for a free one.")] = 8000,
    unix_socket: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Listen on a socket file of yours instead, for a proxy.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Clients, their tokens, limits, how gently to fetch.")
    ] = None,
    jobs_at_once: JobsAtOnce = 4,
    workers: Workers = None,
    cluster: ClusterOption = None,
    work: Annotated[bool, typer.Option(help="Also run jobs; without, `pipeline work` does elsewhere.")] = True,
    allow_private: AllowPrivate = None,
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = "info",
    parent: Annotated[int | None, typer.Option(hidden=True, help="End when this process has gone.")] = None,
) -> None:
    """Serve jobs over HTTP and WebSocket, with a page.

    The link that it prints holds a token; PIPELINE_TOKEN names one of yours, and a settings file names several.
    """
    from pipeline.interfaces.server.logs import configure_logs
    from pipeline.interfaces.server.options import OPERATOR, Client, OptionsFile, ServerOptions, hash_token
    from pipeline.interfaces.server.process import serve as serve_until_signal

    _require_level(log_level)
    settings = _settings(cluster)
    given = OptionsFile.read(config) if config else OptionsFile()
    token = os.environ.get("PIPELINE_TOKEN") or ("" if given.clients else secrets.token_urlsafe(24))
    own = {hash_token(token): Client(OPERATOR, is_admin=True)} if token else {}
    root = destination.expanduser().absolute()
    _make_folder(root)
    options = ServerOptions(
        root=root.resolve(),
        host=host,
        port=port,
        unix_socket=unix_socket.absolute() if unix_socket else None,
        clients={**given.clients, **own},
        allow_private=settings.allow_private if allow_private is None else allow_private,
        fetching=given.fetching,
        images=given.images,
        limits=given.limits,
        **given.access,
    )
    console = open_console()

    def say_where(bound_port: int) -> None:
        place = f"http://{f'[{host}]' if ':' in host else host}:{bound_port}/"
        link = f"{place}?token={token}" if token else place
        # Behind a proxy, its log is where this goes: no place for a token.
        shown = str(unix_socket) if unix_socket else link
        console.print(f"Serving on [bold]{escape(shown)}[/]", highlight=False, soft_wrap=True)
        console.print(f"Results go to {escape(str(root))}; Ctrl-C ends it.", highlight=False, soft_wrap=True)

    configure_logs(log_level)
    worker_arguments = ["--jobs", str(jobs_at_once), "--log-level", log_level]
    worker_arguments += ["--workers", str(workers)] if workers else []
    worker_arguments += ["--cluster", cluster] if cluster else []
    with connect(settings.redis_url, settings.data_dir, settings.secret) as store:
        asyncio.run(serve_until_signal(options, settings, store, worker_arguments if work else None, say_where, parent))


def work(
    jobs_at_once: JobsAtOnce = 4,
    workers: Workers = None,
    cluster: ClusterOption = None,
    until_input_ends: Annotated[bool, typer.Option("--until-input-ends", hidden=True)] = False,
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the jobs that wait in the queue of a service; as many such processes as you like, anywhere.

    They need the same Redis (REDIS_URL) and the same destination as the servers.
    """
    from pipeline.interfaces.server.logs import configure_logs
    from pipeline.interfaces.server.process import work as work_until_signal
    from pipeline.work import QueueWorker

    _require_level(log_level)
    settings = _settings(cluster)
    configure_logs(log_level)
    with connect(settings.redis_url, settings.data_dir, settings.secret) as store:
        work_until_signal(QueueWorker(store, settings, jobs_at_once, workers), until_input_ends=until_input_ends)


def _settings(cluster: str | None) -> Settings:
    settings = Settings.from_environ()
    return dataclasses.replace(settings, cluster=cluster) if cluster else settings


def _require_level(level: str) -> None:
    if level not in {"debug", "info", "warning", "error"}:
        raise SettingsError(f"the log level is {level!r}; allowed is debug, info, warning or error")


def _make_folder(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK):
            raise PermissionError(13, "permission denied")
    except OSError as error:
        raise DestinationError(f"cannot write to the destination {str(root)!r}: {error.strerror or error}") from error
