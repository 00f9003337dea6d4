"""The application: which handler answers what, and the server around it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import structlog
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets, bind_unix_socket
from tornado.web import Application, RequestHandler

from pipeline.errors import SettingsError
from pipeline.interfaces.server import jobs, operations, results
from pipeline.interfaces.server.base import NotFound
from pipeline.interfaces.server.options import ServerOptions
from pipeline.interfaces.server.services import Services
from pipeline.interfaces.server.socket import Socket
from pipeline.settings import Settings
from pipeline.state import JobStore

log = structlog.get_logger(__name__)

# The letters of a job's id: nothing else finds its way to a handler.
_ID: Final = r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})"

_ROUTES: Final = (
    (r"/", "/", operations.Page),
    (r"/jobs", "/jobs", jobs.Jobs),
    (rf"/jobs?/{_ID}", "/jobs/ID", jobs.OneJob),
    (rf"/jobs/{_ID}/items", "/jobs/ID/items", jobs.Items),
    (rf"/jobs/{_ID}/retry", "/jobs/ID/retry", jobs.Retry),
    (rf"/results/{_ID}/(.+)", "/results/ID/KEY", results.Results),
    (rf"/sources/{_ID}/(.+)", "/sources/ID/KEY", results.Sources),
    (r"/models", "/models", operations.Models),
    (r"/healthz", "/healthz", operations.Health),
    (r"/readyz", "/readyz", operations.Ready),
    (r"/metrics", "/metrics", operations.MetricsPage),
    (r"/openapi\.json", "/openapi.json", operations.OpenApi),
    (r"/ws", "/ws", Socket),
)

# Files, connections to Redis and the like, beside those to clients.
_FILES_OF_OUR_OWN: Final = 100
_HEADER_BYTES: Final = 16 * 2**10
_IDLE_S: Final = 75.0
_PING_S: Final = 20.0

# How long requests that are being answered are given when the server ends.
_DRAIN_S: Final = 5.0


def make_application(services: Services) -> Application:
    """Put the handlers together."""
    routes = [(path, handler, {"services": services, "route": route}) for path, route, handler in _ROUTES]
    return Application(
        [*routes, (r"/static/(.+)", operations.PageFiles, {"path": str(operations.PAGE_FOLDER)})],
        default_handler_class=NotFound,
        default_handler_args={"services": services},
        log_function=_log_request,
        websocket_ping_interval=_PING_S,
        websocket_ping_timeout=_PING_S,
        websocket_max_message_size=services.options.limits.message_bytes,
    )


class _BoundedServer(HTTPServer):
    """A server that closes connections beyond what the operating system lets it open, rather than failing at all."""

    def initialize(self, *args: Any, services: Services, **kwargs: Any) -> None:  # type: ignore[override]
        """Take Tornado's options."""
        super().initialize(*args, **kwargs)
        self._services = services
        self._most = raise_file_limit() - _FILES_OF_OUR_OWN

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Take a connection, if there is room."""
        if len(self._connections) + self._services.sockets_by_client.total() >= self._most:
            stream.close()
            return
        super().handle_stream(stream, address)


def raise_file_limit() -> int:
    """Let this process open as many files, sockets among them, as it may; return how many."""
    try:
        import resource
    except ImportError:  # Windows has none.
        return 2**14
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft if soft > 0 else 2**20


@contextlib.asynccontextmanager
async def running_server(options: ServerOptions, settings: Settings, store: JobStore) -> AsyncIterator[int]:
    """Serve until the end of the block; gives the port, 0 for a socket file.

    Raises
    ------
    SettingsError
        If the address cannot be listened on.
    """
    services = Services.of(options, settings, store)
    application = make_application(services)
    server = _BoundedServer(
        application,
        services=services,
        xheaders=options.trusts_proxy,
        # Uploads are streamed to files; this only bounds what is read of a body.
        max_body_size=options.limits.upload_bytes,
        body_timeout=options.limits.body_timeout_s,
        max_header_size=_HEADER_BYTES,
        idle_connection_timeout=_IDLE_S,
    )
    listeners = _listen(options)
    server.add_sockets(listeners)
    relaying = asyncio.create_task(services.relay.run())
    try:
        yield 0 if options.unix_socket else listeners[0].getsockname()[1]
    finally:
        server.stop()
        relaying.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await server.close_all_connections()
        with contextlib.suppress(asyncio.CancelledError):
            await relaying
        await services.relay.aclose()
        services.close()
        if options.unix_socket:
            options.unix_socket.unlink(missing_ok=True)


def _listen(options: ServerOptions) -> list[socket.socket]:
    if options.unix_socket is not None:
        return [_listen_on_file(options.unix_socket)]
    try:
        return bind_sockets(options.port, options.host, reuse_port=False)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror or error}; "
            "choose another place with --host and --port"
        ) from error


def _listen_on_file(path: Path) -> socket.socket:
    try:
        # The mode is set before anybody can connect.
        return bind_unix_socket(str(path), mode=0o600)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"cannot listen on the socket file {str(path)!r}: {reason}") from error


def _log_request(handler: RequestHandler) -> None:
    """Log a request: its path only, since a query may hold a token."""
    status = handler.get_status()
    write = log.info if status < 500 else log.error
    is_of_job = isinstance(handler, jobs.OneJob | jobs.Items | jobs.Retry | results.Results)
    write(
        "request",
        method=handler.request.method,
        path=handler.request.path,
        status=status,
        ms=round(handler.request.request_time() * 1000, 1),
        **({"job_id": handler.path_args[0]} if is_of_job and handler.path_args else {}),
    )
