"""What Jupyter answers below ``/pipeline``: to whom Jupyter knows, and as the service would."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado import web
from tornado.websocket import WebSocketHandler

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    # Imported on use: Jupyter starts without it.
    from pipeline.interfaces.jupyter.on_demand import DeskOnDemand
    from pipeline.interfaces.server.conversation import Conversation

# What an operator's authorizer may allow or forbid to a user.
_RESOURCE: Final = "pipeline"

_LISTED: Final = 50
_LONGEST_LIST: Final = 1000
_MESSAGE_BYTES: Final = 16 * 2**10


class _Answering(APIHandler):
    """An answer in JSON, errors too, in the service's form."""

    auth_resource = _RESOURCE

    def initialize(self, desks: DeskOnDemand) -> None:
        """Take where jobs are found."""
        self.desks = desks

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong."""
        _, error, _ = kwargs.get("exc_info", (None, None, None))
        if isinstance(error, PipelineError):
            from pipeline.interfaces.server.errors import as_request_error

            refused = as_request_error(error)
            self.set_status(refused.status)
            for name, value in refused.headers.items():
                self.set_header(name, value)
            self.finish({"error": str(refused)})
            return
        reason = error.get_message() if isinstance(error, web.HTTPError) else None
        self.finish({"error": reason or HTTPStatus(status_code).phrase})

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log what nobody foresaw."""
        if not isinstance(value, PipelineError):
            super().log_exception(typ, value, tb)


class Jobs(_Answering):
    """``GET /pipeline/jobs``."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List the newest jobs."""
        text = self.get_query_argument("limit", str(_LISTED))
        if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= _LONGEST_LIST):
            from pipeline.interfaces.server.errors import RequestError

            message = f"limit is {text[:20]!r}; allowed is a whole number from 1 to {_LONGEST_LIST}"
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, message)
        desk = await self.desks.get()
        shown = await desk.list_newest(int(text))
        self.finish(f'{{"jobs": [{", ".join(job.text for job in shown)}]}}')


class OneJob(_Answering):
    """``GET /pipeline/jobs/ID``."""

    @web.authenticated
    @authorized
    async def get(self, job_id: str) -> None:
        """Say how a job stands."""
        desk = await self.desks.get()
        self.finish((await desk.show(job_id)).text)


class Socket(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """``/pipeline/ws``: Jupyter says who may open it, and from which origin; what is said is a `Conversation`."""

    auth_resource = _RESOURCE
    _conversation: Conversation | None = None

    def initialize(self, desks: DeskOnDemand) -> None:
        """Take where jobs are found."""
        self.desks = desks

    def set_default_headers(self) -> None:
        """Set none: they are meant for pages."""

    @property
    def max_message_size(self) -> int:
        """Bytes that a client may send at once: it only names jobs."""
        return _MESSAGE_BYTES

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Become a WebSocket."""
        may = self.authorizer.is_authorized(self, self.current_user, "read", self.auth_resource)
        if not await ensure_async(may):
            raise web.HTTPError(HTTPStatus.FORBIDDEN)
        try:
            self._desk = await self.desks.get()
        except PipelineError as error:
            self.log.error("pipeline: %s", error)
            raise web.HTTPError(HTTPStatus.SERVICE_UNAVAILABLE) from error
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> None:
        """Begin the conversation."""
        from pipeline.interfaces.jupyter.desk import USER
        from pipeline.interfaces.server.conversation import Conversation

        super().open(*args, **kwargs)
        self.set_nodelay(True)
        self._conversation = Conversation(self, self._desk, USER)

    async def on_message(self, message: str | bytes) -> None:
        """Do what the client asks for; the next message is read when this one has been answered."""
        if self._conversation:
            await self._conversation.hear(message)

    def on_close(self) -> None:
        """Forget the socket."""
        if self._conversation:
            self._conversation.end()
            self._conversation = None
