"""``/ws``: who may open a WebSocket; what is said over it is a `Conversation`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from tornado.websocket import WebSocketHandler

from pipeline.interfaces.server.base import Guarded
from pipeline.interfaces.server.conversation import Conversation
from pipeline.interfaces.server.errors import RequestError


class Socket(Guarded, WebSocketHandler):
    """A client that follows jobs."""

    _conversation: Conversation | None = None

    def check_access(self) -> None:
        """Beside what every request has to fulfil, a page of another site may not open a socket."""
        super().check_access()
        self.check_same_site()
        services = self.services
        if services.sockets_by_client[self.client.name] >= services.limits.sockets_per_client:
            raise RequestError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"too many WebSockets; allowed are {services.limits.sockets_per_client} a client",
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
        self._conversation = Conversation(self, self.services, self.client)
        self.set_nodelay(True)
        self.services.sockets_by_client[self.client.name] += 1
        self.services.metrics.sockets.inc()

    async def on_message(self, message: str | bytes) -> None:
        """Do what the client asks for; the next message is read when this one has been answered."""
        if self._conversation:
            await self._conversation.hear(message)

    def on_close(self) -> None:
        """Forget the socket."""
        if self._conversation is None:
            return
        self._conversation.end()
        self._conversation = None
        self.services.sockets_by_client[self.client.name] -= 1
        self.services.metrics.sockets.dec()
