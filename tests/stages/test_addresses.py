from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import AddressError
from pipeline.stages.addresses import (
    NotPublicError,
    is_public,
    open_public_socket,
    require_allowed,
)

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.100.100.200",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fc00::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "64:ff9b:1::1",
    "192.0.0.192",
    "192.88.99.1",
    "::ffff:0:7f00:1",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "2606:4700::5efe:7f00:1",
    "2606:4700::200:5efe:a00:1",
]


@pytest.mark.parametrize("host", PRIVATE)
def test_an_address_off_the_internet_is_not_public(host: str) -> None:
    assert not is_public(host)


@pytest.mark.parametrize(
    "host",
    ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::5efe:808:808"],
)
def test_an_address_on_the_internet_is_public(host: str) -> None:
    assert is_public(host)


@given(ipv4=st.ip_addresses(v=4), tunnel=st.sampled_from(["::", "::ffff:0:0", "64:ff9b::", "2002::"]))
def test_a_private_ipv4_address_stays_private_inside_ipv6(ipv4: ipaddress.IPv4Address, tunnel: str) -> None:
    shift = 80 if tunnel == "2002::" else 0
    carrier = ipaddress.IPv6Address(int(ipaddress.IPv6Address(tunnel)) | int(ipv4) << shift)
    assert is_public(str(carrier)) == is_public(str(ipv4))


def test_a_teredo_address_is_public_only_if_client_and_server_are() -> None:
    def teredo(server: str, client: str) -> str:
        obfuscated = int(ipaddress.IPv4Address(client)) ^ 0xFFFF_FFFF
        prefix = int(ipaddress.IPv6Address("2001::"))
        return str(ipaddress.IPv6Address(prefix | int(ipaddress.IPv4Address(server)) << 64 | obfuscated))

    assert is_public(teredo("8.8.8.8", "8.8.4.4"))
    assert not is_public(teredo("8.8.8.8", "127.0.0.1"))
    assert not is_public(teredo("10.0.0.1", "8.8.4.4"))


def test_a_socket_is_made_for_a_public_address_only() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    open_public_socket((*info, ("8.8.8.8", 80))).close()
    with pytest.raises(NotPublicError):
        open_public_socket((*info, ("127.0.0.1", 80)))


@pytest.mark.parametrize("url", ["http://h/", "HTTPS://h/", "s3://b/k", "/a.jpg", "a::b.jpg", "file:///a.jpg"])
def test_http_paths_and_object_stores_are_allowed(url: str) -> None:
    require_allowed(url, allow_private=False)


@pytest.mark.parametrize(
    "url",
    ["ftp://10.0.0.1/a", "simplecache::http://127.0.0.1/", "zip://a::http://127.0.0.1/", "s3://b/k::http://127.0.0.1/"],
)
def test_a_scheme_that_dials_unchecked_needs_allow_private(url: str) -> None:
    require_allowed(url, allow_private=True)
    with pytest.raises(AddressError, match="allowed are http, https"):
        require_allowed(url, allow_private=False)


@pytest.mark.parametrize("allow_private", [True, False])
def test_an_unknown_scheme_is_refused(allow_private: bool) -> None:
    with pytest.raises(AddressError, match="scheme 'gopher' is not allowed; allowed are http, https"):
        require_allowed("gopher://h/", allow_private)


@pytest.mark.parametrize("url", ["", "  "])
def test_an_empty_url_is_refused(url: str) -> None:
    with pytest.raises(AddressError, match="empty"):
        require_allowed(url, allow_private=True)
