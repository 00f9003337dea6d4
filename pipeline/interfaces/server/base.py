"""What every request goes through: the host, the origin, the token; errors as JSON; security headers."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from typing import Any, ClassVar, Final

import structlog
from tornado.web import HTTPError, RequestHandler

from pipeline.errors import PipelineError
from pipeline.interfaces.server.access import find_client, is_allowed_host, is_same_origin, read_bearer
from pipeline.interfaces.server.errors import RequestError, as_request_error
from pipeline.interfaces.server.options import Client
from pipeline.interfaces.server.services import Services

log = structlog.get_logger(__name__)

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "image-pipeline",
}

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Guarded(RequestHandler):
    """A handler behind the checks that all share.

    Attributes
    ----------
    needs_token : bool
        Whether only who knows a token is answered.
    client : Client
        Who asks, if a token is needed.
    """

    needs_token: ClassVar[bool] = True
    client: Client

    def initialize(self, services: Services, route: str) -> None:
        """Take what all handlers share."""
        self.services = services
        self.route = route
        self._started_at_s = time.perf_counter()

    def set_default_headers(self) -> None:
        """Let browsers do nothing with an answer but show it."""
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse whoever does not belong here."""
        try:
            self.check_access()
        except RequestError as error:
            self.refuse(error)

    def check_access(self) -> None:
        """Raise RequestError unless the request may be answered."""
        host, options = self.host_asked_for, self.services.options
        if not is_allowed_host(host, options):
            raise RequestError(
                HTTPStatus.FORBIDDEN,
                f"this server does not answer as {host[:100]!r}; its operator may allow that name (allowed_hosts)",
            )
        if self.request.method not in _SAFE_METHODS:
            self.check_same_site()
        if self.needs_token:
            self.client = self.require_client()

    def check_same_site(self) -> None:
        """Refuse what a page of another site makes a browser send."""
        origin = self.request.headers.get("Origin", "")
        is_foreign = self.request.headers.get("Sec-Fetch-Site", "") in {"cross-site", "same-site"}
        if origin and not is_same_origin(
            origin,
            self.host_asked_for,
            self.request.protocol,
            trusts_proxy=self.services.options.trusts_proxy,
        ):
            is_foreign = True
        if is_foreign:
            raise RequestError(HTTPStatus.FORBIDDEN, "a page of another site may not do this")

    def require_client(self) -> Client:
        """Return whose token the request has."""
        token = read_bearer(self.request.headers.get("Authorization", "")) or self.get_query_argument("token", "")
        client = find_client(token, self.services.options.clients) if token else None
        if client is None:
            said = "this token is not known" if token else "a token is needed"
            raise RequestError(
                HTTPStatus.UNAUTHORIZED,
                f"{said}: `pipeline serve` prints it; send it as `Authorization: Bearer TOKEN` or `?token=TOKEN`",
                {"WWW-Authenticate": "Bearer"},
            )
        return client

    @property
    def host_asked_for(self) -> str:
        """The name under which the client reaches the server, a trusted proxy's word for it included."""
        forwarded = self.request.headers.get("X-Forwarded-Host", "")
        if self.services.options.trusts_proxy and forwarded:
            return forwarded.split(",")[0].strip()
        return self.request.headers.get("Host", "")

    @property
    def prefix(self) -> str:
        """The path under which a trusted proxy shows the server; empty without one."""
        options = self.services.options
        if not options.trusts_proxy and options.unix_socket is None:
            return ""
        headers = self.request.headers
        prefix = headers.get("X-Forwarded-Prefix") or headers.get("X-Forwarded-Context") or ""
        return "/" + prefix.strip("/") if prefix.strip("/") else ""

    def answer(self, value: Any, status: int = HTTPStatus.OK) -> None:
        """Answer with JSON; a text is JSON already."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(value if isinstance(value, str) else json.dumps(value))

    def refuse(self, error: PipelineError) -> None:
        """Answer with an error."""
        refused = as_request_error(error)
        for name, value in refused.headers.items():
            self.set_header(name, value)
        self.answer({"error": str(refused)}, refused.status)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer to what went wrong: ours in its words, everything else in general ones, logged."""
        _, error, _ = kwargs.get("exc_info", (None, None, None))
        if isinstance(error, PipelineError):
            self.refuse(error)
            return
        try:
            reason = HTTPStatus(status_code).phrase
        except ValueError:
            reason = "the request cannot be done"
        if isinstance(error, HTTPError) and error.log_message and status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            reason = (error.get_message() or reason)[:200]
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            reason = f"{self.request.method} is not possible on {self.request.path}"
        self.answer({"error": reason}, status_code)

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log what nobody foresaw."""
        if isinstance(value, PipelineError | HTTPError):
            return
        log.error("request_failed", route=self.route, exc_info=(typ, value, tb))

    def on_finish(self) -> None:
        """Count the request."""
        metrics = self.services.metrics
        # Whoever asks may call a method anything.
        method = self.request.method if self.request.method in self.SUPPORTED_METHODS else "other"
        metrics.requests.labels(method, self.route, self.get_status()).inc()
        metrics.request_seconds.labels(self.route).observe(time.perf_counter() - self._started_at_s)


class NotFound(Guarded):
    """Every path that means nothing."""

    needs_token = False

    def initialize(self, services: Services) -> None:  # type: ignore[override]
        """Take what all handlers share."""
        super().initialize(services, "unknown")

    def prepare(self) -> None:
        """Say so, whatever the method."""
        self.refuse(RequestError(HTTPStatus.NOT_FOUND, f"nothing is at {self.request.path}"))
