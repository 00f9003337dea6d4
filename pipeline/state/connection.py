"""The one place that opens Redis, and that turns its errors into ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import EqualJitterBackoff, NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from pipeline.errors import StateError

# A server that does not answer at all is reported after this time; one that answered before gets the retries too.
_FIRST_ANSWER_S: Final = 2.5
_ANSWER_S: Final = 5.0

# A dropped connection is opened again for 2 to 4 seconds: what a restart takes.
_RECONNECTS: Final = 6
_LONGEST_WAIT_S: Final = 1.0
_SHORTEST_WAIT_S: Final = 0.05


def redact_url(url: str) -> str:
    """Return the URL without its user and passwords, fit for messages and logs."""
    without_passwords = re.sub(r"(password=)[^&#]*", r"\1***", url)
    return re.sub(r"//.*@", "//***@", without_passwords)


def open_redis(url: str) -> Redis:
    """Open the server at a URL, after it has answered once.

    Parameters
    ----------
    url : str
        ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads them.

    Returns
    -------
    Redis
        A pool of connections that answers with text; thread-safe; to be closed.

    Raises
    ------
    StateError
        If the URL means nothing, or no server answers within about three seconds.
    """
    _check_answer(url)
    backoff = EqualJitterBackoff(cap=_LONGEST_WAIT_S, base=_SHORTEST_WAIT_S)
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=_FIRST_ANSWER_S,
        socket_timeout=_ANSWER_S,
        retry=Retry(backoff, _RECONNECTS),
    )


def open_async_redis(url: str) -> AsyncRedis:
    """Open the server at a URL for a loop's own use; nothing is asked yet.

    Parameters
    ----------
    url : str
        As `JobStore.url` gives it.

    Returns
    -------
    redis.asyncio.Redis
        Answers with text; to be closed with ``aclose``. It does not try again by itself.
    """
    return AsyncRedis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=_FIRST_ANSWER_S,
        socket_timeout=_ANSWER_S,
        retry=AsyncRetry(NoBackoff(), 0),
    )


@contextmanager
def redis_errors(where: str) -> Iterator[None]:
    """Raise a StateError that names the server, in place of redis-py's errors.

    Parameters
    ----------
    where : str
        The server's redacted URL.
    """
    try:
        yield
    except RedisError as error:
        raise StateError(f"Redis at {where} does not answer as it should: {_first_line(error)}") from error


def _check_answer(url: str) -> None:
    where = redact_url(url)
    try:
        probe = Redis.from_url(
            url,
            socket_connect_timeout=_FIRST_ANSWER_S,
            socket_timeout=_FIRST_ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        )
        with probe, redis_errors(where):
            probe.ping()
    except (TypeError, ValueError):
        # Without its cause, which may quote a part of the password.
        raise StateError(
            f"cannot use the Redis URL {where!r}: allowed is redis://HOST:PORT/DB, rediss://… or unix://PATH"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
