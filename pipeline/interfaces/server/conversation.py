"""What is said over one WebSocket, whoever opened it: a client names jobs, and hears how they stand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Final, Protocol

import structlog
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from pipeline.domain import is_job_id
from pipeline.errors import PipelineError
from pipeline.interfaces.server.errors import RequestError, as_request_error
from pipeline.interfaces.server.metrics import Metrics
from pipeline.interfaces.server.options import Client, Limits
from pipeline.interfaces.server.presenting import Snapshot
from pipeline.interfaces.server.relay import Relay, error_text
from pipeline.interfaces.server.submission import parse_json

log = structlog.get_logger(__name__)

# WebSocket's own code for a client that does not play by the rules.
_POLICY: Final = 1008


class Desk(Protocol):
    """Where a conversation finds jobs: a server of ours, or Jupyter's.

    Attributes
    ----------
    relay : Relay
    limits : Limits
    metrics : Metrics
    """

    @property
    def relay(self) -> Relay: ...  # noqa: D102
    @property
    def limits(self) -> Limits: ...  # noqa: D102
    @property
    def metrics(self) -> Metrics: ...  # noqa: D102

    async def require_visible(self, job_id: str, client: Client) -> None:
        """Raise JobNotFoundError unless there is such a job and the client may see it."""


class Conversation:
    """A client that follows jobs over a WebSocket, which has been opened and let in already.

    Parameters
    ----------
    socket : WebSocketHandler
        Hands on its messages to `hear` and its end to `end`.
    desk : Desk
    client : Client
        Who is at the other end.
    """

    def __init__(self, socket: WebSocketHandler, desk: Desk, client: Client) -> None:
        self._socket = socket
        self._desk = desk
        self._client = client
        # The jobs, each with the version that was offered last.
        self._following: dict[str, int] = {}
        # The latest state of each job that the client has not been sent yet.
        self._pending: dict[str, Snapshot] = {}
        self._sending: asyncio.Task[None] | None = None
        self._is_open = True

    async def hear(self, message: str | bytes) -> None:
        """Do what the client asks for."""
        try:
            await self._do(message)
        except PipelineError as error:
            await self._send(error_text(str(as_request_error(error))))

    def end(self) -> None:
        """Forget everything of it."""
        self._is_open = False
        for job_id in list(self._following):
            self._forget(job_id)
        self._pending.clear()

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
        most = self._desk.limits.jobs_per_socket
        # Asked again, it is shown again, as after a retry.
        self._forget(job_id)
        if len(self._following) >= most:
            raise RequestError(HTTPStatus.TOO_MANY_REQUESTS, f"too many jobs; allowed are {most} a WebSocket")
        await self._desk.require_visible(job_id, self._client)
        if self._is_open:
            self._following[job_id] = -1
            await self._desk.relay.follow(job_id, self)
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
            connection = self._socket.ws_connection
            stream = connection.stream if connection else None
            if stream is None or stream.closed():
                return
            written = stream.write(snapshot.frame)
            self._desk.metrics.messages.inc()
            if not written.done():
                self._sending = asyncio.ensure_future(self._await_client(written))
                return

    async def _await_client(self, written: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._desk.limits.socket_deadline_s):
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
            async with asyncio.timeout(self._desk.limits.socket_deadline_s):
                await self._socket.write_message(text)
        except WebSocketClosedError:
            return
        except TimeoutError:
            self._drop()

    def _drop(self) -> None:
        """Close a socket whose client takes nothing: politeness would wait for it too."""
        log.info("socket_dropped", client=self._client.name)
        self._desk.metrics.dropped.inc()
        self._socket.close(_POLICY, "too slow")
        connection = self._socket.ws_connection
        if connection is not None and connection.stream is not None:
            connection.stream.close()

    def _forget(self, job_id: str) -> None:
        self._following.pop(job_id, None)
        self._pending.pop(job_id, None)
        self._desk.relay.unfollow(job_id, self)
