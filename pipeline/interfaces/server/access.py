"""Who may do what: tokens, the names under which a server is reached, and a token bucket for each client."""

from __future__ import annotations

import ipaddress
import math
import secrets
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from pipeline.interfaces.server.options import Client, ServerOptions, hash_token

_LOOPBACK_NAMES: Final = frozenset({"localhost", "ip6-localhost"})


def find_client(token: str, clients: Mapping[bytes, Client]) -> Client | None:
    """Return whose token it is. Every known one is compared, in a time that does not depend on any."""
    given = hash_token(token)
    found = None
    for known, client in clients.items():
        if secrets.compare_digest(known, given):
            found = client
    return found


def read_bearer(header: str) -> str:
    """Return the token of an ``Authorization`` header; empty if there is none."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def is_allowed_host(host: str, options: ServerOptions) -> bool:
    """Whether a request's ``Host`` is one under which the server is meant to be reached.

    A name that somebody else's name server points at this machine (DNS rebinding) is not; an address is no name. No
    name leads a browser to a socket file: there, the name is the proxy's, which has to check it.
    """
    name = _host_name(host)
    if name is None:
        return False
    if options.unix_socket is not None:
        return True
    known = {options.host.lower(), *_LOOPBACK_NAMES, *(allowed.lower() for allowed in options.allowed_hosts)}
    return name in known or _is_address(name)


def is_same_origin(origin: str, host: str, scheme: str, *, trusts_proxy: bool) -> bool:
    """Whether a browser's page that sends a request is the server's own.

    Behind a proxy that is trusted, the scheme is what the proxy says; elsewhere only the host and port count, since
    TLS may end before the server.
    """
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"} or (trusts_proxy and parts.scheme != scheme):
        return False
    return parts.netloc.lower() == host.lower()


class TokenBucket:
    """How often a client may do something: a rate, and a burst that it may save up.

    Parameters
    ----------
    rate_per_s, burst : float
    clock : callable
        Seconds of any clock that only grows.
    """

    def __init__(self, rate_per_s: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate_per_s = rate_per_s
        self._burst = max(1.0, burst)
        self._clock = clock
        self._level_by_client: dict[str, tuple[float, float]] = {}

    def seconds_to_wait(self, client: str) -> int:
        """Take one token; 0 if there was one, or else the whole seconds until there is."""
        now = self._clock()
        level, then = self._level_by_client.get(client, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._rate_per_s)
        if level < 1:
            self._level_by_client[client] = (level, now)
            return max(1, math.ceil((1 - level) / self._rate_per_s))
        self._level_by_client[client] = (level - 1, now)
        return 0


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
