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
_IPV4_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
# Whatever else IPv6 has is not routed on the internet (RFC 4291, section 2.4), or is a prefix for translation: the
# ipaddress of Python takes ::ffff:0:7f00:1 for global. Of these, RFC 9637 took a part out for documentation.
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_DOCUMENTATION: Final = ipaddress.IPv6Network("3fff::/20")
# Protocols' own (RFC 6890), and the gateways of 6to4 (RFC 7526), which unwrap what they are sent: not all Pythons know.
_IPV4_OF_PROTOCOLS: Final = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("192.88.99.0/24"))
# The second half of an ISATAP address (RFC 5214) but for the universal bit: 0000:5efe, then an IPv4 address.
_ISATAP: Final = 0x5EFE


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
    An IPv6 address that carries an IPv4 one (mapped, compatible, 6to4, NAT64, Teredo, ISATAP) is public only if both
    are: a gateway on the way would unwrap it.
    """
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        of_protocol = any(address in network for network in _IPV4_OF_PROTOCOLS)
        return address.is_global and not (address.is_multicast or of_protocol)
    carried = _carried_ipv4(address)
    if carried:
        return all(is_public(str(ipv4)) for ipv4 in carried)
    is_unicast = address in _GLOBAL_UNICAST and address not in _DOCUMENTATION
    return is_unicast and address.is_global and _is_isatap_public(address)


def _is_isatap_public(address: ipaddress.IPv6Address) -> bool:
    """Whether the IPv4 address that an ISATAP address carries is public; so is what is none."""
    is_isatap = int(address) >> 32 & 0xFDFF_FFFF == _ISATAP
    return not is_isatap or is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)))


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
