"""Which URLs and network addresses may be asked for an image: rules, no requests."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final

import fsspec

from pipeline.errors import AddressError
from pipeline.urls import OBJECT_STORES, is_within, scheme_of

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType

HTTP: Final = frozenset({"http", "https"})
LOCAL: Final = frozenset({"file", "local"})

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
# RFC 8215; the ipaddress of early Python 3.11 takes it for global.
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_IPV4_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


class NotPublicError(OSError):
    """A socket to an address that is not public was asked for.

    It is an OSError, since only those come back whole from aiohttp's race between addresses. All of them have the
    same text, since the race gives back one of several errors only if they say the same.
    """

    def __init__(self, host: str) -> None:
        super().__init__("not a public address")
        self.host = host


def require_allowed(url: str, allow_private: bool, places: tuple[str, ...] | None = None) -> None:
    """Refuse a URL that is empty, whose scheme may not be asked, or that is outside the places that are open.

    Raises
    ------
    AddressError
        If it may not.
    """
    if not url.strip():
        raise AddressError("it is empty")
    if places is not None and not is_within(url, places):
        raise AddressError("it is outside what a client of the service may ask for")
    scheme = scheme_of(url)
    if allow_private:
        is_allowed = scheme in HTTP or scheme in fsspec.available_protocols()
    else:
        # Of an object store the user's configuration names the server. In the other schemes of fsspec (ftp, sftp,
        # webhdfs, chains such as zip://…::http://…) the URL does, and nothing checks the address that is dialled.
        is_allowed = scheme in HTTP | LOCAL or (scheme in OBJECT_STORES and "::" not in url)
    if not is_allowed:
        raise AddressError(f"scheme {scheme!r} is not allowed; allowed are http, https, s3, gs, abfs, hf and paths")


def is_public(host: str) -> bool:
    """Tell whether an IP address is on the public internet.

    Parameters
    ----------
    host : str
        An IPv4 or IPv6 address, with or without a zone (``fe80::1%eth0``).

    Notes
    -----
    An IPv6 address that carries an IPv4 one (mapped, compatible, 6to4, NAT64, Teredo) is public only if both are:
    a gateway on the way would unwrap it.
    """
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    carried = _carried_ipv4(address)
    if carried:
        return all(is_public(str(ipv4)) for ipv4 in carried)
    return address.is_global and not (address.is_multicast or address.is_site_local or address in _LOCAL_NAT64)


def _carried_ipv4(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    if address.teredo:
        return list(address.teredo)
    if address in _NAT64 or address in _IPV4_COMPATIBLE:
        return [ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)]
    return [ipv4 for ipv4 in (address.ipv4_mapped, address.sixtofour) if ipv4]


def open_public_socket(addr_info: AddrInfoType) -> socket.socket:
    """Make the socket for an address that is about to be dialled; aiohttp asks for every one, redirects' too.

    Raises
    ------
    NotPublicError
        If the address is not public.
    """
    family, kind, protocol, _, address = addr_info
    if not is_public(address[0]):
        raise NotPublicError(address[0])
    return socket.socket(family=family, type=kind, proto=protocol)
