"""What keeps the service going: health, metrics, its description, the models, and the page."""

from __future__ import annotations

import dataclasses
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any, Final

from tornado.web import HTTPError, StaticFileHandler

from pipeline.catalogue import list_models
from pipeline.domain import Recipe
from pipeline.errors import StateError
from pipeline.interfaces.server import metrics
from pipeline.interfaces.server.access import find_client, read_bearer
from pipeline.interfaces.server.base import SECURITY_HEADERS, Guarded, log
from pipeline.interfaces.server.openapi import describe_service

PAGE_FOLDER: Final = Path(str(resources.files(__package__).joinpath("page")))

# Scripts and styles of its own only; images also from where a job's sources are.
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; form-action 'none'; base-uri 'none'; "
    "img-src 'self' blob: data: http: https:; connect-src 'self' ws: wss:; frame-ancestors 'none'"
)


class Health(Guarded):
    """``GET /healthz``: the process lives."""

    needs_token = False

    async def get(self) -> None:
        """Say so."""
        self.answer({"status": "ok"})


class Ready(Guarded):
    """``GET /readyz``: Redis answers, and a queue worker with its Dask cluster is there."""

    needs_token = False

    async def get(self) -> None:
        """Say what is missing, if anything is."""
        try:
            workers = await self.services.call(self.services.store.queue.workers)
        except StateError:
            self.answer(
                {"error": "Redis does not answer", "redis": False, "dask": False}, HTTPStatus.SERVICE_UNAVAILABLE
            )
            return
        if not workers:
            reason = "no queue worker with a Dask cluster is there: it starts, or start one with `pipeline work`"
            self.answer({"error": reason, "redis": True, "dask": False}, HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self.answer({"status": "ready", "redis": True, "dask": True, "workers": len(workers)})


class MetricsPage(Guarded):
    """``GET /metrics``, for Prometheus."""

    async def get(self) -> None:
        """Answer in Prometheus' text format."""
        queue = self.services.store.queue
        counts = await self.services.call(queue.counts)
        workers = await self.services.call(queue.workers)
        self.set_header("Content-Type", metrics.CONTENT_TYPE)
        self.finish(self.services.metrics.expose(counts, len(workers)))


class OpenApi(Guarded):
    """``GET /openapi.json``."""

    needs_token = False

    async def get(self) -> None:
        """Describe the service."""
        self.answer(describe_service(self.services.options.limits))


class Models(Guarded):
    """``GET /models``: what a recipe may name."""

    async def get(self) -> None:
        """List the models, and the one that is meant if nothing is said."""
        cards = await self.services.call(list_models, self.services.settings.models)
        names = ("name", "scale", "description", "figures")
        shown = [{name: dataclasses.asdict(card)[name] for name in names} for card in cards]
        self.answer({"models": shown, "default": Recipe().enhance})


class Page(Guarded):
    """``GET /``: the page; it holds nothing of anybody, and asks for the token by itself."""

    needs_token = False

    async def get(self) -> None:
        """Send the page; behind a proxy that adds a token to every request, the page is told that it needs none."""
        self.set_header("Content-Security-Policy", PAGE_POLICY)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-cache")
        page = (PAGE_FOLDER / "index.html").read_bytes()
        # No browser sends this header when it opens a page.
        token = read_bearer(self.request.headers.get("Authorization", ""))
        if token and find_client(token, self.services.options.clients):
            page = page.replace(b"<html ", b'<html data-token="added-by-proxy" ', 1)
        self.finish(page)


class PageFiles(StaticFileHandler):
    """``GET /static/…``: the page's scripts and styles."""

    def set_default_headers(self) -> None:
        """Let nothing else be made of them."""
        for name, value in SECURITY_HEADERS.items():
            if name != "Cache-Control":
                self.set_header(name, value)

    def set_extra_headers(self, path: str) -> None:
        """Have browsers ask whether they changed: a new release is seen at once."""
        self.set_header("Cache-Control", "no-cache")

    @classmethod
    def get_absolute_path(cls, root: str, path: str) -> str:
        """Refuse what no file can be called."""
        if "\0" in path:
            raise HTTPError(HTTPStatus.NOT_FOUND)
        return super().get_absolute_path(root, path)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer as the rest of the service."""
        self.finish({"error": HTTPStatus(status_code).phrase})

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log what nobody foresaw, without the query, which may hold a token."""
        if not isinstance(value, HTTPError):
            log.error("request_failed", route="/static", exc_info=(typ, value, tb))
