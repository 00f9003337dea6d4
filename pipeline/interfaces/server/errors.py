"""The errors of requests, and which status an error of the pipeline gets."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import structlog

from pipeline.errors import (
    JobConflictError,
    JobNotFoundError,
    ModelError,
    PipelineError,
    QueueFullError,
    RecipeError,
    SourceError,
)

log = structlog.get_logger(__name__)

# How long a client is told to wait until jobs that wait have been taken.
_QUEUE_RETRY_S: Final = 5


class RequestError(PipelineError):
    """A request that cannot be done as it is.

    Parameters
    ----------
    status : int
        HTTP's.
    message : str
        What, on what, why.
    headers : mapping of str to str, optional
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return self.message


def as_request_error(error: PipelineError) -> RequestError:
    """Give an error of the pipeline its HTTP status."""
    match error:
        case RequestError():
            return error
        case JobNotFoundError():
            return RequestError(HTTPStatus.NOT_FOUND, "Job not found")
        case JobConflictError():
            return RequestError(HTTPStatus.CONFLICT, str(error))
        case QueueFullError():
            return RequestError(HTTPStatus.TOO_MANY_REQUESTS, str(error), {"Retry-After": str(_QUEUE_RETRY_S)})
        case RecipeError() | ModelError() | SourceError():
            return RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        case _:
            # Its words are about the server's own machines.
            log.error("unavailable", reason=str(error))
            message = "the service cannot do this just now: try again later, and tell its operator if it stays so"
            return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, message, {"Retry-After": str(_QUEUE_RETRY_S)})
