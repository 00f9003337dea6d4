"""Fetch the bytes of one image: over HTTP, from the local disk, or from an object store.

Which URLs and addresses may be asked is decided in `addresses`, what a failure means and when to try again in `retry`.
"""

from __future__ import annotations

import asyncio
import http
import io
import itertools
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from weakref import WeakValueDictionary

import aiohttp
import fsspec
from yarl import URL

from pipeline import fingerprints
from pipeline.domain import FetchPolicy
from pipeline.errors import AddressError, FetchError, ServerError
from pipeline.stages.addresses import HTTP, LOCAL, open_public_socket, require_allowed
from pipeline.stages.gate import HostGate
from pipeline.stages.lender import HostLimit, Lender
from pipeline.stages.local_file import read_local
from pipeline.stages.reading import Read, require_size
from pipeline.stages.retry import READ_ERRORS, THROTTLING_STATUSES, StatusError, backoff_s, explain, parse_retry_after
from pipeline.stages.robots import RobotsTagError, find_forbidding, full_user_agent, join_tags, names_in
from pipeline.stages.stored_object import read_object
from pipeline.urls import scheme_of

MAX_REDIRECTS: Final = 5

_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_READ_BUFFER_BYTES: Final = 2**20
# Idle connections to thousands of hosts would use up the file descriptors; those of one host are reused at once.
_KEEPALIVE_S: Final = 5.0
_DNS_TTL_S: Final = 60
# What is quoted already is sent as it stands: another way of quoting would break its signature.
_WELL_FORMED: Final = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes of an image.

    Attributes
    ----------
    data : bytes
        As the source sent them, perhaps empty: whether they are an image is for the decoder to say.
    attempts : int
        How often the source was asked, 1 or more.
    robots : str
        What its server's header ``X-Robots-Tag`` said; empty without one.
    fingerprint : str
        Of the bytes, see `pipeline.fingerprints`.
    """

    data: bytes
    attempts: int
    robots: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The source has the bytes that it was known to have; they were not read."""

    attempts: int
    robots: str = ""


@dataclass(frozen=True, slots=True)
class Unfetched:
    """Why there are no bytes, after how many attempts."""

    error: FetchError
    attempts: int
    robots: str = ""


class Fetcher:
    """Fetches images; keeps what is expensive to make: connections, names, file systems.

    It belongs to one event loop, and is closed there with `aclose`, for good. Proxies of the environment are not used,
    since behind one nobody sees which address is dialled; neither are cookies and ``.netrc``.

    Parameters
    ----------
    policy : FetchPolicy
    storage_options : mapping, optional
        As in fsspec, for URLs that are neither http(s) nor local.
    lender : Lender, optional
        Who counts the requests to a web server, where other processes ask it too.
    """

    def __init__(
        self,
        policy: FetchPolicy,
        storage_options: Mapping[str, Any] | None = None,
        lender: Lender | None = None,
    ) -> None:
        self._policy = policy
        self._storage_options = dict(storage_options or {})
        self._user_agent = full_user_agent(policy.user_agent)
        self._names = names_in(self._user_agent)
        self._session: aiohttp.ClientSession | None = None
        self._hosts = HostGate(HostLimit.of(policy), lender)
        self._gate_by_bucket: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._running: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def try_fetch(
        self, url: str, known: str = "", *, wants_fingerprint: bool = False
    ) -> Fetched | Unchanged | Unfetched:
        """Fetch the bytes of one image, trying again what may pass.

        Parameters
        ----------
        url : str
            An http(s) URL, a local path (or ``file://``, unquoted as in fsspec), or another URL that fsspec opens.
        known : str
            The fingerprint of bytes that need not be fetched again.
        wants_fingerprint : bool
            Whether an object store is asked for the fingerprint, which is a request of its own; others tell it anyway.

        Returns
        -------
        Fetched, Unchanged or Unfetched
            The bytes; or that they are those that are known; or the FetchError that says why there are none. Each with
            the number of attempts.

        Raises
        ------
        asyncio.CancelledError
            If the fetcher is closed meanwhile, or was before: that is no failure of the image.
        """
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await self._fetch(url, known, wants_fingerprint)
        finally:
            self._running.discard(task)

    async def aclose(self) -> None:
        """Cancel the tasks that still fetch, and close the connections."""
        self._is_closed = True
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        await self._hosts.aclose()
        if self._session is not None:
            await self._session.close()

    async def _fetch(self, url: str, known: str, wants_fingerprint: bool) -> Fetched | Unchanged | Unfetched:
        for attempt in itertools.count(1):
            try:
                read = await self._attempt(url, known, wants_fingerprint)
                if read.data is None:
                    return Unchanged(attempt, read.robots)
                return Fetched(read.data, attempt, robots=read.robots, fingerprint=read.fingerprint)
            except READ_ERRORS as error:
                # Only its words are kept: its traceback would keep the buffers of a large body alive.
                trouble = explain(error, self._policy, datetime.now(UTC))
            if not trouble.may_pass or attempt > self._policy.retries:
                break
            await asyncio.sleep(backoff_s(attempt, trouble.retry_after_s, random.random()))
        return Unfetched(trouble.to_error(url, attempt), attempt, trouble.robots)

    async def _attempt(self, url: str, known: str, wants_fingerprint: bool) -> Read:
        require_allowed(url, self._policy.allow_private, self._policy.places)
        scheme = scheme_of(url)
        if scheme in HTTP:
            return await self._read_http(_parse(url), known)
        if scheme in LOCAL:
            async with asyncio.timeout(self._policy.timeout_s):
                path, policy = fsspec.core.strip_protocol(url), self._policy
                bounds = (policy.within, policy.places)
                return await asyncio.to_thread(read_local, path, policy.max_bytes, known, *bounds)
        # The wait for a turn is not the store's fault, so it comes before the time-out.
        async with self._gate(_bucket_of(url)), asyncio.timeout(self._policy.timeout_s):
            return await read_object(
                url,
                self._storage_options,
                self._policy.max_bytes,
                known=known,
                wants_fingerprint=wants_fingerprint,
            )

    def _gate(self, bucket: str) -> asyncio.Semaphore:
        return self._gate_by_bucket.setdefault(bucket, asyncio.Semaphore(self._policy.connections_per_host))

    async def _read_http(self, url: URL, known: str) -> Read:
        session = self._open_session()
        headers = fingerprints.condition(known)
        left_s = self._policy.timeout_s
        for _ in range(1 + MAX_REDIRECTS):
            host = _host_of(url)
            # Followed by hand, since aiohttp quotes what it is redirected to anew. The wait for a turn is not the
            # server's fault, so it comes before the time-out.
            async with (
                self._hosts.turn(host),
                asyncio.timeout(left_s) as timer,
                session.get(url, headers=headers, allow_redirects=False) as response,
            ):
                location = response.headers.get("Location")
                if response.status not in _REDIRECT_STATUSES or not location:
                    self._heed_throttling(host, response)
                    if response.status == http.HTTPStatus.NOT_MODIFIED and headers:
                        return Read(None, known, self._heed_robots(response))
                    _require_whole(response)
                    robots = self._heed_robots(response)
                    body = await _read_body(response, self._policy.max_bytes)
                    return Read(body, fingerprints.of_answer(response.headers), robots)
                left_s = (timer.when() or 0.0) - asyncio.get_running_loop().time()
            url = url.join(_parse(location))
            if url.scheme not in HTTP:
                raise AddressError(f"it redirects to a {url.scheme!r} URL; allowed are http and https")
        raise ServerError(f"more than {MAX_REDIRECTS} redirects")

    def _heed_throttling(self, host: str, response: aiohttp.ClientResponse) -> None:
        """Leave a host alone for as long as it asks: the images that wait for a turn are not to be refused too."""
        if response.status in THROTTLING_STATUSES:
            self._hosts.pause(host, parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC)))

    def _heed_robots(self, response: aiohttp.ClientResponse) -> str:
        """Return what the server says to robots, unless that forbids us to read on."""
        values = response.headers.getall("X-Robots-Tag", [])
        tag = join_tags(values)
        if self._policy.respect_robots and (directive := find_forbidding(values, self._names)):
            raise RobotsTagError(directive, tag)
        return tag

    def _open_session(self) -> aiohttp.ClientSession:
        if self._is_closed:
            # A new session would be closed by nobody.
            raise asyncio.CancelledError("the fetcher is closed")
        if self._session is None:
            connector = aiohttp.TCPConnector(
                # The gate bounds how much is asked of a host at once, the caller how much in all.
                limit=0,
                keepalive_timeout=_KEEPALIVE_S,
                ttl_dns_cache=_DNS_TTL_S,
                socket_factory=None if self._policy.allow_private else open_public_socket,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity", "User-Agent": self._user_agent},
                # The whole of an answer is bounded around it. A handshake of TLS is part of connecting.
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._policy.idle_s, sock_read=self._policy.idle_s
                ),
                read_bufsize=_READ_BUFFER_BYTES,
            )
        return self._session


def _host_of(url: URL) -> str:
    return (url.raw_host or "").rstrip(".")


def _bucket_of(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _parse(url: str) -> URL:
    return URL(url, encoded=bool(_WELL_FORMED.fullmatch(url)))


def _require_whole(response: aiohttp.ClientResponse) -> None:
    # 206 is a part that nobody asked for.
    if not 200 <= response.status < 300 or response.status == 206:
        raise StatusError(response.status, response.headers.get("Retry-After"))


async def _read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    require_size(response.content_length or 0, max_bytes)
    # Not a list of chunks: to join them takes their memory twice, and a chunk may be of one byte.
    body = io.BytesIO()
    # Counted after decompression: some servers compress unasked, and a small body may be a large one.
    async for chunk in response.content.iter_any():
        body.write(chunk)
        require_size(body.tell(), max_bytes)
    return body.getvalue()
