"""What went wrong in one attempt to fetch an image, and whether and when to try again: decided here, done in fetch."""

from __future__ import annotations

import http
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as StoreConnectionError,
)
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

from pipeline.domain import FetchPolicy
from pipeline.errors import (
    AccessError,
    AddressError,
    FetchError,
    MissingError,
    RobotsError,
    ServerError,
    TimeoutFetchError,
)
from pipeline.stages.addresses import NotPublicError
from pipeline.stages.robots import RobotsTagError
from pipeline.storage import REFUSALS, StoreAnswer, answer_behind, reason_of
from pipeline.urls import redact

BACKOFF_BASE_S: Final = 0.2
BACKOFF_CAP_S: Final = 10.0
RETRY_AFTER_CAP_S: Final = 60.0
# S3 says that it is asked too often, not for how long to leave it alone.
THROTTLED_S: Final = 1.0
THROTTLING_STATUSES: Final = frozenset({429, 503})
PASSING_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

_KIND_BY_STATUS: Final = {401: AccessError, 403: AccessError, 404: MissingError, 410: MissingError}


class StatusError(Exception):
    """The server answered with a status that is no success.

    Attributes
    ----------
    status : int
    retry_after : str or None
        The header of that name.
    """

    def __init__(self, status: int, retry_after: str | None = None) -> None:
        super().__init__(status, retry_after)
        self.status = status
        self.retry_after = retry_after


# What reading an image may raise; all of it is explained below. Most stores raise an OSError, s3fs not always.
READ_ERRORS: Final = (
    aiohttp.ClientError,
    BotoCoreError,
    FetchError,
    ImportError,
    OSError,
    ResponseParserError,
    RobotsTagError,
    StatusError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong in one attempt.

    Attributes
    ----------
    kind : type of FetchError
    why : str
        The end of the sentence "cannot fetch URL: ".
    may_pass : bool
        Whether another attempt may fare better.
    retry_after_s : float
        Seconds that the server asks to be left alone, at most 60.
    robots : str
        What it says to robots, if that is the trouble.
    """

    kind: type[FetchError]
    why: str
    may_pass: bool = False
    retry_after_s: float = 0.0
    robots: str = ""

    def to_error(self, url: str, attempts: int) -> FetchError:
        """Make the error that the user sees."""
        after = f" (after {attempts} attempts)" if attempts > 1 else ""
        return self.kind(f"cannot fetch {redact(url)!r}: {self.why}{after}")


def explain(error: Exception, policy: FetchPolicy, now: datetime) -> Trouble:
    """Say what an error of one attempt means.

    Parameters
    ----------
    error : Exception
        Of aiohttp, fsspec or the operating system; or a FetchError or StatusError of our own.
    policy : FetchPolicy
        How it was asked.
    now : datetime
        With its time zone; what a date in ``Retry-After`` is measured from.
    """
    if answer := answer_behind(error):
        return _explain_answer(error, answer, now)
    match error:
        case FetchError():
            return Trouble(type(error), str(error))
        case RobotsTagError():
            why = f"its server says {error.directive!r} to robots (X-Robots-Tag)"
            return Trouble(RobotsError, why, robots=error.tag)
        case StatusError():
            return _explain_status(error, now)
        case aiohttp.ServerTimeoutError():
            return Trouble(TimeoutFetchError, f"its server sends nothing for {policy.idle_s:g} s", may_pass=True)
        case TimeoutError():
            return Trouble(TimeoutFetchError, f"no whole answer in {policy.timeout_s:g} s", may_pass=True)
        case aiohttp.ClientError():
            return _explain_client_error(error)
        case FileNotFoundError() | NotADirectoryError():
            return Trouble(MissingError, "no such file")
        case IsADirectoryError():
            return Trouble(MissingError, "it is a folder")
        case PermissionError():
            return Trouble(AccessError, error.strerror or str(error))
        case OSError():
            return Trouble(FetchError, error.strerror or str(error), may_pass=isinstance(error, ConnectionError))
        case ValueError():
            return Trouble(AddressError, "it is no valid URL or path")
        case NoCredentialsError() | PartialCredentialsError():
            return Trouble(AccessError, reason_of(error))
        case HTTPClientError() | StoreConnectionError() | ResponseParserError():
            # Some stores answer what is no XML when they are asked too often.
            return Trouble(ServerError, reason_of(error), may_pass=True)
    # For want of a package, or of sense in the options.
    return Trouble(FetchError, reason_of(error))


def backoff_s(attempt: int, retry_after_s: float, jitter: float) -> float:
    """Return the seconds to wait after an attempt that failed.

    Exponential with full jitter, on top of what the server asked for.

    Parameters
    ----------
    attempt : int
        1 for the first.
    retry_after_s : float
    jitter : float
        Random, from 0 to 1.

    References
    ----------
    Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    # 2.0**1024 overflows; the cap is reached long before.
    return retry_after_s + jitter * min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(attempt - 1, 32))


def parse_retry_after(value: str | None, now: datetime) -> float:
    """Return the seconds that a ``Retry-After`` header asks for: 0 to 60, and 0 for what cannot be read."""
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), RETRY_AFTER_CAP_S)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    # RFC 5322 dates in -0000 come without a zone; they mean UTC.
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return min(max((date - now).total_seconds(), 0.0), RETRY_AFTER_CAP_S)


def _explain_status(error: StatusError, now: datetime) -> Trouble:
    try:
        phrase = f" {http.HTTPStatus(error.status).phrase}"
    except ValueError:
        phrase = ""
    return Trouble(
        _KIND_BY_STATUS.get(error.status, ServerError),
        f"the server answers {error.status}{phrase}",
        may_pass=error.status in PASSING_STATUSES,
        retry_after_s=parse_retry_after(error.retry_after, now),
    )


def _explain_answer(error: Exception, answer: StoreAnswer, now: datetime) -> Trouble:
    kind = AccessError if answer.code in REFUSALS else _KIND_BY_STATUS.get(answer.status, ServerError)
    is_throttled = answer.status in THROTTLING_STATUSES
    return Trouble(
        kind,
        reason_of(error),
        may_pass=answer.status in PASSING_STATUSES,
        retry_after_s=max(parse_retry_after(answer.retry_after, now), THROTTLED_S if is_throttled else 0.0),
    )


def _explain_client_error(error: aiohttp.ClientError) -> Trouble:
    match error:
        case aiohttp.InvalidURL():
            # With a description, what aiohttp calls the URL is its host.
            return Trouble(
                AddressError, f"{error.url} {error.description}" if error.description else "it is no valid URL"
            )
        case aiohttp.ClientConnectorCertificateError():
            why = getattr(error.certificate_error, "verify_message", "") or "it does not fit the host"
            return Trouble(FetchError, f"the server's TLS certificate is refused: {why}")
        case aiohttp.ClientConnectorError():
            return _explain_connector_error(error)
        case aiohttp.ClientPayloadError():
            return Trouble(ServerError, "the body ends early or is damaged", may_pass=True)
        case aiohttp.ClientConnectionError():
            return Trouble(ServerError, "the server closed the connection before the end", may_pass=True)
    return Trouble(ServerError, "the answer is no valid HTTP")


def _explain_connector_error(error: aiohttp.ClientConnectorError) -> Trouble:
    cause = error.os_error
    match error:
        case aiohttp.ClientConnectorError(os_error=NotPublicError(host=host)):
            return Trouble(
                AddressError, f"{host} is not a public address; allow private addresses with --allow-private"
            )
        case aiohttp.ClientConnectorDNSError():
            # Only "try again" may pass: a name that does not exist still will not in a second.
            why = f"host {error.host!r} has no address: {cause.strerror}"
            return Trouble(FetchError, why, may_pass=cause.errno == socket.EAI_AGAIN)
        case aiohttp.ClientSSLError():
            return Trouble(FetchError, f"TLS fails: {getattr(cause, 'reason', None) or cause.strerror or cause}")
    # aiohttp's own text is longer than its worth.
    why = os.strerror(cause.errno) if cause.errno else str(cause)
    return Trouble(FetchError, f"cannot connect to {error.host}:{error.port}: {why}", may_pass=True)
