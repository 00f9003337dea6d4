"""``/ws``: one WebSocket, which may follow many jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any, Final

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from pipeline.domain import is_job_id
from pipeline.errors import JobNotFoundError, PipelineError
from pipeline.interfaces.server.base import Guarded, log
from pipeline.interfaces.server.errors import RequestError, as_request_error
from pipeline.interfaces.server.presenting import Snapshot
from pipeline.interfaces.server.relay import error_text
from pipeline.interfaces.server.services import may_see
from pipeline.interfaces.server.submission import parse_json

# WebSocket's own code for a client that does not play by the rules.
_POLICY: Final = 1008


class Socket(Guarded, WebSocketHandler):
    """A client that follows jobs."""

    def initialize(self, services: Any, route: str) -> None:
        """Take what all handlers share."""
        super().initialize(services, route)
        # The jobs, each with the version that was offered last.
        self._following: dict[str, int] = {}
        # The latest state of each job that the client has not been sent yet.
        self._pending: dict[str, Snapshot] = {}
        self._sending: asyncio.Task[None] | None = None
        self._is_open = False

    def check_access(self) -> None:
        """Beside what every request has to fulfil, a page of another site may not open a socket."""
        super().check_access()
        self.check_same_site()
        services = self.services
        if services.sockets_by_client[self.client.name] >= services.options.limits.sockets_per_client:
            raise RequestError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"too many WebSockets; allowed are {services.options.limits.sockets_per_client} a client",
                {"Retry-After": "5"},
            )

    def check_origin(self, origin: str) -> bool:
        """Leave that to `check_access`, which answers in JSON."""
        return True

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Become a WebSocket, or say that this is one."""
        if self.request.headers.get("Upgrade", "").lower() != "websocket":
            self.refuse(RequestError(HTTPStatus.BAD_REQUEST, "/ws is for WebSockets: connect with ws:// or wss://"))
            return
        await super().get(*args, **kwargs)

    def open(self, *args: str, **kwargs: str) -> None:
        """Count the socket."""
        self._is_open = True
        self.set_nodelay(True)
        self.services.sockets_by_client[self.client.name] += 1
        self.services.metrics.sockets.inc()

    async def on_message(self, message: str | bytes) -> None:
        """Do what the client asks for; the next message is read when this one has been answered."""
        try:
            await self._do(message)
        except PipelineError as error:
            await self._send(error_text(str(as_request_error(error))))

    async def _do(self, message: str | bytes) -> None:
        asked = parse_json(message.encode() if isinstance(message, str) else message, "the message")
        kind, job_id = asked.get("type"), asked.get("jobId")
        if kind not in ("subscribe", "unsubscribe"):  # a set would ask for its hash
            shown = repr(kind)[:100]
            raise RequestError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"type is {shown}; allowed are 'subscribe' and 'unsubscribe'"
            )
        if not is_job_id(job_id):
            raise RequestError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"jobId is {ascii(job_id)[:100]}; allowed is a job's id"
            )
        if kind == "unsubscribe":
            self._forget(job_id)
            return
        try:
            await self._subscribe(job_id)
        except PipelineError as error:
            await self._send(error_text(str(as_request_error(error)), job_id))

    async def _subscribe(self, job_id: str) -> None:
        limits, relay = self.services.options.limits, self.services.relay
        # Asked again, it is shown again, as after a retry.
        self._forget(job_id)
        if len(self._following) >= limits.jobs_per_socket:
            raise RequestError(
                HTTPStatus.TOO_MANY_REQUESTS, f"too many jobs; allowed are {limits.jobs_per_socket} a WebSocket"
            )
        owner = relay.owner_of(job_id)
        if owner is None:
            await self.services.show(job_id, self.client)
        elif not may_see(self.client, owner):
            raise JobNotFoundError(f"no job {job_id!r}")
        if self._is_open:
            self._following[job_id] = -1
            await relay.follow(job_id, self)
            if not self._is_open:
                self._forget(job_id)

    def offer(self, snapshot: Snapshot) -> None:
        """Send a job's latest state as soon as the client has taken what came before."""
        if not self._is_open or self._following.get(snapshot.job_id, snapshot.version) >= snapshot.version:
            return
        self._pending[snapshot.job_id] = snapshot
        self._following[snapshot.job_id] = snapshot.version
        if snapshot.is_final:
            # The relay forgets the job by itself.
            del self._following[snapshot.job_id]
        if self._sending is None:
            self._send_pending()

    def _send_pending(self) -> None:
        """Send what is pending as long as the operating system takes it at once; wait for the client otherwise."""
        while self._pending:
            snapshot = self._pending.pop(next(iter(self._pending)))
            # Tornado's own way makes the frame and two objects of asyncio anew for every socket: four times the work.
            stream = self.ws_connection.stream if self.ws_connection else None
            if stream is None or stream.closed():
                return
            written = stream.write(snapshot.frame)
            self.services.metrics.messages.inc()
            if not written.done():
                self._sending = asyncio.ensure_future(self._await_client(written))
                return

    async def _await_client(self, written: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self.services.options.limits.socket_deadline_s):
                await written
        except StreamClosedError:
            return
        except TimeoutError:
            self._drop()
            return
        self._sending = None
        self._send_pending()

    async def _send(self, text: str) -> None:
        """Answer a client; what it asks next is read afterwards."""
        try:
            async with asyncio.timeout(self.services.options.limits.socket_deadline_s):
                await self.write_message(text)
        except WebSocketClosedError:
            return
        except TimeoutError:
            self._drop()

    def _drop(self) -> None:
        """Close a socket whose client takes nothing: politeness would wait for it too."""
        log.info("socket_dropped", client=self.client.name)
        self.services.metrics.dropped.inc()
        self.close(_POLICY, "too slow")
        if self.ws_connection is not None and self.ws_connection.stream is not None:
            self.ws_connection.stream.close()

    def on_close(self) -> None:
        """Forget everything of it."""
        if not self._is_open:
            return
        self._is_open = False
        for job_id in list(self._following):
            self._forget(job_id)
        self._pending.clear()
        self.services.sockets_by_client[self.client.name] -= 1
        self.services.metrics.sockets.dec()

    def _forget(self, job_id: str) -> None:
        self._following.pop(job_id, None)
        self._pending.pop(job_id, None)
        self.services.relay.unfollow(job_id, self)
