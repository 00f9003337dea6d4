"""No URL, name or redirect makes us dial an address that is not public, or read what is not fetched over HTTP.

Each vector goes through the real Fetcher with the rules of the server. Below the rules, where sockets connect, is the
small internet of `tests.fixtures.network`: a public address there leads to the tests' web server, and a canary on
loopback hears of whoever comes through.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.domain import FetchPolicy
from pipeline.errors import AddressError, FetchError, ServerError
from pipeline.stages import fetch as fetching
from pipeline.stages.fetch import Fetched, Fetcher, Unchanged, Unfetched
from tests.fixtures.network import OTHER_PUBLIC, PUBLIC, Network
from tests.fixtures.web import Reply, Web

# As `pipeline serve` has it: whoever asks is a stranger.
SERVER = FetchPolicy(timeout_s=20, retries=0, places=("http://", "https://"))
# As the command line has it: local paths and object stores are the user's own.
USER = replace(SERVER, places=None)

LITERALS = [
    # 127.0.0.1, as inet_aton, browsers and people write it.
    *("127.0.0.1", "127.0.0.1.", "127.0.1", "127.1", "2130706433", "017700000001", "0x7f000001", "0X7F000001"),
    *("0x7f.0.0.1", "0x7f.1", "0177.0.0.1", "0177.1", "00000177.0.0.01", "127.0x0.0.1", "127.000.000.001"),
    *("\uff11\uff12\uff17.\uff10.\uff10.\uff11", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1"),
    *("%31%32%37.0.0.1", "127.0.0.1%00", "127.0.0.1%2e", "127.0.0.1%20", "127%2E0%2E0%2E1", "127.0.0.1%0d%0a"),
    *("127.255.255.254", "0", "0.0.0.0", "0.0.0.0.", "0x0", "00", "256.256.256.256", "6425673729", "127.0.0.257"),
    # Private, shared, link-local with the clouds' metadata, protocols' own, documentation, benchmarks, multicast.
    *("10.0.0.1", "0xa000001", "167772161", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.257"),
    *("169.254.169.254", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.254.170.2", "100.64.0.1"),
    *("100.100.100.200", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    # IPv6: loopback, any, and what carries an IPv4 address.
    *("[::1]", "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::]", "[::ffff:127.0.0.1]"),
    *("[::ffff:7f00:1]", "[0:0:0:0:0:FFFF:7F00:0001]", "[::127.0.0.1]", "[::7f00:1]", "[::ffff:0:127.0.0.1]"),
    *("[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2002:a00:1::1]"),
    *("[2001:0:7f00:1::]", "[2001:0:5db8:d822:0:0:80ff:fffe]", "[2606:4700::5efe:127.0.0.1]"),
    # Unique local, link-local with its zones, site-local, multicast, documentation, and what is not routed.
    *("[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fe80::1%25lo]", "[fe80::1%lo]", "[::1%25lo]", "[::1%lo]"),
    *("[fec0::1]", "[ff02::1]", "[ff05::1:3]", "[2001:db8::1]", "[3fff::1]", "[100::1]", "[2001:2::1]"),
    *("[2001:10::1]", "[5f00::1]", "[4000::1]", "[v1.127.0.0.1]", "[127.0.0.1]", "[::ffff:127.0.0.1"),
    # Names that every machine knows, or whose dots mean nothing.
    *("localhost", "LOCALHOST", "localhost.", "LocalHost.LocalDomain", "ip6-localhost", "a.localhost", ".localhost"),
    # What stands in front of an @ is no host, however it looks.
    *(f"{PUBLIC}@127.0.0.1", f"user:word@{'127.0.0.1'}", f"{PUBLIC}:80@127.0.0.1", f"{PUBLIC}%40127.0.0.1"),
    *(f"{PUBLIC}%2f@127.0.0.1", f"a@{PUBLIC}@127.0.0.1", f"{PUBLIC}%23@[::1]", "@localhost", ":@127.1"),
]


@pytest.mark.parametrize("host", LITERALS)
@pytest.mark.parametrize("policy", [SERVER, USER], ids=["server", "user"])
def test_a_host_that_is_not_public_is_not_dialled_however_it_is_written(
    network: Network, host: str, policy: FetchPolicy
) -> None:
    unfetched = run(network.canary.url(host), policy)
    assert isinstance(unfetched, Unfetched)
    assert isinstance(unfetched.error, FetchError)
    assert network.dialled == []
    assert network.canary.connections == 0


# {port} is the canary's.
WRITTEN_OTHERWISE = [
    f"http://{PUBLIC}\\@127.0.0.1:{{port}}/",
    f"http://127.0.0.1:{{port}}\\@{PUBLIC}/",
    f"http://127.0.0.1:{{port}}#@{PUBLIC}/",
    f"http://127.0.0.1:{{port}}?@{PUBLIC}/",
    f"http://{PUBLIC}#@127.0.0.1:{{port}}/",
    f"http://{PUBLIC}?@127.0.0.1:{{port}}/",
    f"http://{PUBLIC}/@127.0.0.1:{{port}}/",
    f"http://{PUBLIC}:80:127.0.0.1:{{port}}/",
    f"http://{PUBLIC} 127.0.0.1:{{port}}/",
    "HTTP://127.0.0.1:{port}/",
    "hTTp://LocalHost:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http:////127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}\\",
    "http:/\\127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "\\\\127.0.0.1:{port}\\share\\a.jpg",
    " http://127.0.0.1:{port}/",
    "\thttp://127.0.0.1:{port}/",
    "\x00http://127.0.0.1:{port}/",
    "ht\ntp://127.0.0.1:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.\n0.1:{port}/",
    "http://127.0.0.1:{port}\r\nHost: 127.0.0.1/",
    f"http://{PUBLIC}/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET http://127.0.0.1:{{port}}/",
    f"http://{PUBLIC}\r\n@127.0.0.1:{{port}}/",
    f"http://{PUBLIC}\uff0f@127.0.0.1:{{port}}/",
    f"http://{PUBLIC}\u2044.127.0.0.1:{{port}}/",
    "http://127.0.0.1:{port}/..//../a.jpg",
    "url:http://127.0.0.1:{port}/",
    "view-source:http://127.0.0.1:{port}/",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/containers",
    "ws://127.0.0.1:{port}/",
]
SCHEMES = [
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "file:/etc/passwd",
    "FILE:///etc/passwd",
    "local:///etc/passwd",
    "/etc/passwd",
    "../../../../etc/passwd",
    "~/.ssh/id_rsa",
    "simplecache::file:///etc/passwd",
    "filecache::file:///etc/passwd",
    "blockcache::/etc/passwd",
    "simplecache::http://127.0.0.1:{port}/",
    "http::http://127.0.0.1:{port}/",
    "http::file:///etc/passwd",
    "https://x::file:///etc/passwd",
    "zip://a.jpg::http://127.0.0.1:{port}/a.zip",
    "tar://a.jpg::http://127.0.0.1:{port}/a.tar",
    "libarchive://a::http://127.0.0.1:{port}/",
    "reference://::http://127.0.0.1:{port}/",
    "dir::http://127.0.0.1:{port}/",
    "dask::http://127.0.0.1:{port}/",
    "s3://bucket/a.jpg::http://127.0.0.1:{port}/",
    "s3://bucket/a.jpg",
    "s3://key:word@127.0.0.1:{port}/a.jpg",
    "gs://bucket/a.jpg",
    "abfs://container@127.0.0.1/a.jpg",
    "memory://a.jpg",
    "ftp://127.0.0.1:{port}/a.jpg",
    "sftp://127.0.0.1:{port}/a.jpg",
    "ssh://127.0.0.1:{port}/a.jpg",
    "smb://127.0.0.1:{port}/share/a.jpg",
    "webhdfs://127.0.0.1:{port}/a.jpg",
    "hdfs://127.0.0.1:{port}/a.jpg",
    "jupyter://127.0.0.1:{port}/a.jpg",
    "github://org:repo@main/a.jpg",
    "git:///etc/a.jpg",
    "gopher://127.0.0.1:{port}/_GET",
    "dict://127.0.0.1:{port}/info",
    "ldap://127.0.0.1:{port}/a",
    "tftp://127.0.0.1:{port}/a",
    "jar:http://127.0.0.1:{port}!/a.jpg",
    "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
    "data://image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
    "javascript:alert(1)",
    "C:\\Windows\\win.ini",
    "\\\\127.0.0.1\\c$\\a.jpg",
    "",
    "::",
]


@pytest.mark.parametrize("written", [*WRITTEN_OTHERWISE, *SCHEMES])
def test_no_way_of_writing_a_url_leads_a_stranger_to_this_machine(network: Network, written: str) -> None:
    """Whether a URL's beginning or its end is taken for its host: what is dialled is public, and no file is read."""
    answer = run(written.replace("{port}", str(network.canary.port)))
    assert isinstance(answer, Unfetched)
    network.assert_untouched()


@pytest.mark.parametrize("written", [url for url in SCHEMES if "127.0.0.1" in url])
def test_no_scheme_leads_a_user_to_an_address_that_nobody_checks(
    network: Network, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without these, botocore asks the cloud that the machine is in.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "word")
    url = written.replace("{port}", str(network.canary.port))
    assert isinstance(run(url, USER), Unfetched)
    network.assert_untouched()


# Redirects: the first hop is public, and answers.

TARGETS = [
    "http://127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "http://[::1]:{port}/",
    "http://localhost:{port}/",
    "http://2130706433:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    f"http://{PUBLIC}@127.0.0.1:{{port}}/",
    "http://loopback.example:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "\\\\127.0.0.1:{port}/",
    "file:///etc/passwd",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/",
    "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
    "simplecache::file:///etc/passwd",
    "zip://a.jpg::http://127.0.0.1:{port}/a.zip",
    "s3://bucket/a.jpg",
    "http://127.0.0.1:{port}/\r\nX: y",
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_leads_to_no_address_and_scheme_that_could_not_be_asked_for(
    network: Network, web: Web, status: int, target: str
) -> None:
    network.names.answer("loopback.example", ["127.0.0.1"])
    location = target.replace("{port}", str(network.canary.port)).replace("\r\n", "%0d%0a")
    web.reply("/a.jpg", Reply(status=status, headers={"Location": location}))
    answer = run(f"http://{PUBLIC}/a.jpg", USER)
    assert isinstance(answer, Unfetched)
    assert web.requests["/a.jpg"] == 1, "the first hop is there"
    network.assert_untouched()


@pytest.mark.parametrize("hops", [2, 4, 5])
def test_a_chain_of_public_hops_is_followed_and_ends_at_the_first_that_is_not(
    network: Network, web: Web, hops: int
) -> None:
    hosts = [PUBLIC, OTHER_PUBLIC] * 3
    for number in range(hops):
        web.reply(f"/{number}", redirect(f"http://{hosts[number + 1]}/{number + 1}"))
    web.serve(f"/{hops}", b"an image")
    assert run(f"http://{PUBLIC}/0") == Fetched(b"an image", 1)
    web.reply(f"/{hops - 1}", redirect(network.canary.url("127.0.0.1")))
    unfetched = run(f"http://{PUBLIC}/0")
    assert isinstance(unfetched, Unfetched)
    assert isinstance(unfetched.error, AddressError)
    network.assert_untouched()


@pytest.mark.parametrize("status", [200, 201, 300, 304, 305, 306, 404, 503])
def test_what_is_no_redirect_leads_nowhere(network: Network, web: Web, status: int) -> None:
    """Neither Location nor Refresh nor Link of another answer, nor the proxy that a 305 wants."""
    there = network.canary.url("127.0.0.1")
    headers = {"Location": there, "Refresh": f"0; url={there}", "Link": f"<{there}>; rel=canonical", "Alt-Svc": there}
    web.reply("/a.jpg", Reply(b"" if status == 304 else b"x", status=status, headers=headers))
    run(f"http://{PUBLIC}/a.jpg")
    assert web.requests["/a.jpg"] == 1
    network.assert_untouched()


def test_redirects_in_a_circle_end(network: Network, web: Web) -> None:
    web.reply("/a", redirect(f"http://{OTHER_PUBLIC}/b"))
    web.reply("/b", redirect(f"http://{PUBLIC}/a"))
    unfetched = run(f"http://{PUBLIC}/a")
    assert isinstance(unfetched, Unfetched)
    assert isinstance(unfetched.error, ServerError)
    assert web.requests["/a"] + web.requests["/b"] == 6


# Names: a real name server answers.


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["127.0.0.1", "::1", "10.0.0.1"],
        ["other.example", "127.0.0.1"],
        ["localhost", "127.0.0.1"],
        ["169.254.169.254"],
        ["fe80::1"],
        ["64:ff9b::7f00:1"],
        ["0.0.0.0"],
    ],
    ids=" ".join,
)
def test_a_name_of_an_address_that_is_not_public_is_not_dialled(network: Network, addresses: list[str]) -> None:
    name = network.names.answer("private.example", addresses)
    unfetched = run(network.canary.url(name))
    assert isinstance(unfetched, Unfetched)
    assert isinstance(unfetched.error, AddressError)
    assert "not a public address" in str(unfetched.error)
    assert network.names.questions
    assert network.dialled == []
    assert network.canary.connections == 0


@pytest.mark.parametrize(
    "addresses",
    [[PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC], ["::1", PUBLIC], [PUBLIC, "::1", "10.0.0.1"]],
    ids=" ".join,
)
def test_of_mixed_answers_only_public_addresses_are_dialled(network: Network, web: Web, addresses: list[str]) -> None:
    web.serve("/secret.jpg", b"an image")
    name = network.names.answer("mixed.example", addresses)
    run(network.canary.url(name))
    network.assert_untouched()


def test_a_name_that_is_bound_anew_after_the_first_answer_is_not_followed(network: Network, web: Web) -> None:
    """The address that is checked is the one that is dialled: no answer of a name server comes in between."""
    web.serve("/secret.jpg", b"an image")
    name = network.names.answer("rebinding.example", [PUBLIC], ["127.0.0.1"])
    url = network.canary.url(name)
    assert run(url) == Fetched(b"an image", 1)
    unfetched = run(url)
    assert isinstance(unfetched, Unfetched)
    assert isinstance(unfetched.error, AddressError)
    assert len(network.names.questions) == 2
    network.assert_untouched()


def test_a_name_that_is_bound_anew_between_a_redirect_and_its_target_is_not_followed(
    network: Network, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is remembered, so that each hop asks.
    monkeypatch.setattr(fetching, "_DNS_TTL_S", 0)
    name = network.names.answer("rebinding.example", [PUBLIC], ["127.0.0.1"])
    web.reply("/a.jpg", Reply(status=302, headers={"Location": network.canary.url(name), "Connection": "close"}))
    unfetched = run(f"http://{name}/a.jpg")
    assert isinstance(unfetched, Unfetched)
    assert isinstance(unfetched.error, AddressError)
    assert len(network.names.questions) == 2
    network.assert_untouched()


def test_a_name_that_is_bound_anew_between_two_attempts_is_not_followed(
    network: Network, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_DNS_TTL_S", 0)
    name = network.names.answer("rebinding.example", [PUBLIC], ["127.0.0.1"])
    web.reply("/secret.jpg", Reply(fault="reset"))
    unfetched = run(network.canary.url(name), replace(SERVER, retries=3))
    assert isinstance(unfetched, Unfetched)
    assert isinstance(unfetched.error, AddressError)
    assert len(network.names.questions) == 2, "asked anew, and then given up"
    network.assert_untouched()


# Credentials


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_and_cookies_are_not_sent_on_to_another_host(network: Network, web: Web, status: int) -> None:
    moved = {"Location": f"http://{OTHER_PUBLIC}/b.jpg", "Set-Cookie": "session=s3cret"}
    web.reply("/a.jpg", Reply(status=status, headers=moved))
    web.serve("/b.jpg", b"an image")
    assert run(f"http://user:s3cret@{PUBLIC}/a.jpg?sig=s3cret") == Fetched(b"an image", 1)
    assert web.headers["/a.jpg"]["Authorization"].startswith("Basic ")
    assert not {"Authorization", "Cookie", "Referer", "Proxy-Authorization"} & {*web.headers["/b.jpg"]}
    assert "s3cret" not in str(web.headers["/b.jpg"])


def test_a_netrc_is_nobodys_to_send(
    network: Network, web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text(f"machine {PUBLIC} login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    web.serve("/a.jpg", b"an image")
    assert run(f"http://{PUBLIC}/a.jpg") == Fetched(b"an image", 1)
    assert "Authorization" not in web.headers["/a.jpg"]


def test_the_canary_hears_of_whoever_comes_through(network: Network) -> None:
    """So that its silence means something."""
    unfetched = run(network.canary.url("0x7f.1"), replace(SERVER, allow_private=True, timeout_s=0.5))
    assert isinstance(unfetched, Unfetched)
    assert network.dialled == ["127.0.0.1"]
    assert network.canary.connections == 1


def run(url: str, policy: FetchPolicy = SERVER) -> Fetched | Unchanged | Unfetched:
    async def main() -> Fetched | Unchanged | Unfetched:
        fetcher = Fetcher(policy)
        try:
            return await fetcher.try_fetch(url)
        finally:
            await fetcher.aclose()

    return asyncio.run(main())


def redirect(location: str) -> Reply:
    return Reply(status=302, headers={"Location": location})
