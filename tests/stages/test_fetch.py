from __future__ import annotations

import asyncio
import gc
import gzip
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import fsspec
import pytest
import tornado.test
from multidict import CIMultiDict

from pipeline.domain import FetchPolicy
from pipeline.errors import (
    AccessError,
    AddressError,
    FetchError,
    MissingError,
    RobotsError,
    ServerError,
    TimeoutFetchError,
    TooLargeError,
)
from pipeline.fingerprints import of_file
from pipeline.stages import addresses, retry
from pipeline.stages.fetch import Fetched, Fetcher, Unfetched
from pipeline.version import __version__
from tests.fixtures.web import Reply, Web

T = TypeVar("T")
LOOPBACK = FetchPolicy(timeout_s=10, allow_private=True)
PUBLIC = FetchPolicy(timeout_s=10, retries=2)


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF_BASE_S", 0.0)


def with_fetcher(use: Callable[[Fetcher], Awaitable[T]], policy: FetchPolicy = LOOPBACK) -> T:
    async def main() -> T:
        fetcher = Fetcher(policy)
        try:
            return await use(fetcher)
        finally:
            await fetcher.aclose()

    return asyncio.run(main())


def fetch(url: str, policy: FetchPolicy = LOOPBACK) -> Fetched:
    fetched = with_fetcher(lambda fetcher: fetcher.try_fetch(url), policy)
    assert isinstance(fetched, Fetched)
    return fetched


def fetch_fails(url: str, policy: FetchPolicy = LOOPBACK) -> Unfetched:
    unfetched = with_fetcher(lambda fetcher: fetcher.try_fetch(url), policy)
    assert isinstance(unfetched, Unfetched)
    return unfetched


# HTTP: bodies


def test_fetch_returns_the_body_and_one_attempt(web: Web) -> None:
    body = bytes(range(256)) * 4000
    assert fetch(web.serve("/a.jpg", body)) == Fetched(body, 1)


def test_an_empty_body_is_left_to_the_decoder(web: Web) -> None:
    assert fetch(web.serve("/empty.jpg", b"")).data == b""


def test_the_request_says_who_asks_and_wants_no_compression(web: Web) -> None:
    fetch(web.serve("/a.jpg", b"a"))
    assert web.headers["/a.jpg"]["Accept-Encoding"] == "identity"
    assert web.headers["/a.jpg"]["User-Agent"] == f"image-pipeline/{__version__}"


def test_who_the_user_is_is_said_before_what_he_uses(web: Web) -> None:
    fetch(web.serve("/a.jpg", b"a"), replace(LOOPBACK, user_agent="lab-crawler/1.0 (+https://lab.example)"))
    said = web.headers["/a.jpg"]["User-Agent"]
    assert said == f"lab-crawler/1.0 (+https://lab.example) image-pipeline/{__version__}"


def test_cookies_are_not_kept(web: Web) -> None:
    url = web.reply("/a.jpg", Reply(b"a", headers={"Set-Cookie": "who=you"}))

    async def twice(fetcher: Fetcher) -> None:
        await fetcher.try_fetch(url)
        await fetcher.try_fetch(url)

    with_fetcher(twice)
    assert "Cookie" not in web.headers["/a.jpg"]


def test_the_proxy_of_the_environment_is_not_used(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch(web.serve("/a.jpg", b"a")).data == b"a"


def test_a_body_that_is_compressed_unasked_is_unpacked(web: Web) -> None:
    url = web.reply("/a.jpg", Reply(gzip.compress(b"a" * 1000), headers={"Content-Encoding": "gzip"}))
    assert fetch(url).data == b"a" * 1000


def test_a_small_body_that_unpacks_to_a_large_one_is_refused(web: Web) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    url = web.reply("/a.jpg", Reply(bomb, headers={"Content-Encoding": "gzip"}))
    unfetched = fetch_fails(url, FetchPolicy(max_bytes=100_000, allow_private=True))
    assert isinstance(unfetched.error, TooLargeError)


def test_a_body_of_the_limit_is_fetched_and_one_byte_more_is_not(web: Web) -> None:
    policy = FetchPolicy(max_bytes=1000, allow_private=True)
    assert len(fetch(web.serve("/a.jpg", bytes(1000)), policy).data) == 1000
    unfetched = fetch_fails(web.serve("/b.jpg", bytes(1001)), policy)
    assert isinstance(unfetched.error, TooLargeError)
    assert str(unfetched.error) == f"cannot fetch {web.url('/b.jpg')!r}: more than the limit of 1000 bytes"
    assert unfetched.attempts == 1


def test_an_endless_body_is_refused_at_the_limit(web: Web) -> None:
    url = web.reply("/drip.jpg", Reply(fault="drip"))
    assert isinstance(fetch_fails(url, FetchPolicy(max_bytes=5, allow_private=True)).error, TooLargeError)


# HTTP: addresses as they are written


def test_a_quoted_url_is_sent_as_it_stands() -> None:
    """Quoting it in another way would break a signature."""

    async def request_line() -> bytes:
        lines: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            lines.append(await reader.readline())
            # To the same server again, which answers with what it was first asked for.
            location = b"Location: /b?y=%2F%41%3B\r\n" if len(lines) == 1 else b""
            writer.write((b"HTTP/1.1 302 Found\r\n" if location else b"HTTP/1.1 200 OK\r\n") + location)
            writer.write(b"Content-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            fetcher = Fetcher(LOOPBACK)
            await fetcher.try_fetch(f"http://127.0.0.1:{port}/a%2Fb%41?x=%2F%41%3B+")
            await fetcher.aclose()
        return b"".join(lines)

    assert asyncio.run(request_line()) == b"GET /a%2Fb%41?x=%2F%41%3B+ HTTP/1.1\r\nGET /b?y=%2F%41%3B HTTP/1.1\r\n"


def test_a_url_with_spaces_and_letters_of_any_alphabet_is_quoted(web: Web) -> None:
    web.serve("/ein Bär.jpg", b"a")
    assert fetch(web.url("/ein Bär.jpg")).data == b"a"


# HTTP: failures


@pytest.mark.parametrize(
    ("status", "error"), [(404, MissingError), (410, MissingError), (401, AccessError), (403, AccessError)]
)
def test_a_final_status_is_not_asked_again(web: Web, status: int, error: type[FetchError]) -> None:
    unfetched = fetch_fails(web.reply("/a.jpg", Reply(status=status)))
    assert type(unfetched.error) is error
    assert web.requests["/a.jpg"] == unfetched.attempts == 1


def test_a_failure_says_what_and_why_without_secrets(web: Web) -> None:
    unfetched = fetch_fails(web.url("/gone.jpg?sig=secret"))
    assert str(unfetched.error) == f"cannot fetch '{web.url('/gone.jpg')}?…': the server answers 404 Not Found"


def test_a_passing_status_is_asked_again_until_it_passes(web: Web) -> None:
    url = web.reply("/a.jpg", Reply(status=503), Reply(status=429), Reply(b"a"))
    assert fetch(url) == Fetched(b"a", 3)


def test_a_status_that_does_not_pass_is_given_up_after_the_retries(web: Web) -> None:
    unfetched = fetch_fails(web.reply("/a.jpg", Reply(status=500)))
    assert isinstance(unfetched.error, ServerError)
    assert str(unfetched.error).endswith("the server answers 500 Internal Server Error (after 3 attempts)")
    assert web.requests["/a.jpg"] == unfetched.attempts == 3


def test_retry_after_is_waited_for(web: Web) -> None:
    url = web.reply("/a.jpg", Reply(status=429, headers={"Retry-After": "1"}), Reply(b"a"))
    started = time.monotonic()
    assert fetch(url).attempts == 2
    assert time.monotonic() - started >= 1


def test_a_truncated_body_is_asked_for_again(web: Web) -> None:
    url = web.reply("/a.jpg", Reply(b"a", headers={"Content-Length": "9"}), Reply(b"a" * 9))
    assert fetch(url) == Fetched(b"a" * 9, 2)
    unfetched = fetch_fails(web.reply("/b.jpg", Reply(b"b", headers={"Content-Length": "9"})))
    assert isinstance(unfetched.error, ServerError)
    assert "the body ends early or is damaged (after 3 attempts)" in str(unfetched.error)


def test_part_of_a_body_is_not_taken_for_the_whole(web: Web) -> None:
    assert isinstance(fetch_fails(web.reply("/a.jpg", Reply(b"a", status=206))).error, ServerError)


def test_a_connection_that_is_reset_is_tried_again(web: Web) -> None:
    unfetched = fetch_fails(web.reply("/a.jpg", Reply(fault="reset")))
    assert isinstance(unfetched.error, ServerError)
    assert "closed the connection before the end (after 3 attempts)" in str(unfetched.error)


@pytest.mark.parametrize(
    ("reply", "why"),
    [(Reply(delay_s=60), "its server sends nothing for 0.2 s"), (Reply(fault="drip"), "no whole answer in 0.6 s")],
    ids=["silent", "drip"],
)
def test_the_time_bounds_the_whole_answer(web: Web, reply: Reply, why: str) -> None:
    unfetched = fetch_fails(web.reply("/a.jpg", reply), FetchPolicy(timeout_s=0.6, retries=1, allow_private=True))
    assert isinstance(unfetched.error, TimeoutFetchError)
    assert str(unfetched.error).endswith(f"{why} (after 2 attempts)")


def test_the_wait_for_a_turn_at_a_busy_host_is_not_its_fault(web: Web) -> None:
    urls = [web.reply(f"/{number}.jpg", Reply(b"a", delay_s=0.4)) for number in range(4)]
    policy = FetchPolicy(timeout_s=1.5, retries=0, connections_per_host=1, allow_private=True)
    fetched = with_fetcher(lambda fetcher: asyncio.gather(*map(fetcher.try_fetch, urls)), policy)
    assert fetched == [Fetched(b"a", 1)] * 4
    assert web.at_once_max == 1


def test_a_host_that_asks_to_be_left_alone_is(web: Web) -> None:
    """The images that wait for a turn neither ask it meanwhile, nor does their time run, nor are they refused too."""
    throttled = Reply(status=429, headers={"Retry-After": "1"})
    urls = [web.reply("/0.jpg", throttled, Reply(b"a"))] + [web.serve(f"/{number}.jpg", b"a") for number in range(1, 5)]
    policy = FetchPolicy(timeout_s=0.5, retries=1, connections_per_host=1, allow_private=True)
    fetched = with_fetcher(lambda fetcher: asyncio.gather(*map(fetcher.try_fetch, urls)), policy)
    assert fetched == [Fetched(b"a", 2)] + [Fetched(b"a", 1)] * 4
    first, second, *_ = web.asked_at
    assert second - first >= 1


def test_a_host_is_spared_those_that_others_redirect_to_it(web: Web) -> None:
    """And nobody waits for the one host while he keeps the other."""
    web.reply("/slow.jpg", Reply(b"a", delay_s=0.05))
    urls = []
    for number in range(6):
        # Each host redirects to the other.
        here, there = ("127.0.0.1", "localhost") if number % 2 else ("localhost", "127.0.0.1")
        web.reply(f"/{number}.jpg", redirect(web.url("/slow.jpg", host=there)))
        urls.append(web.url(f"/{number}.jpg", host=here))
    policy = FetchPolicy(timeout_s=10, retries=0, connections_per_host=1, allow_private=True)
    fetched = with_fetcher(lambda fetcher: asyncio.gather(*map(fetcher.try_fetch, urls)), policy)
    assert fetched == [Fetched(b"a", 1)] * 6
    assert web.at_once_max <= 2


def test_redirects_share_the_time_of_one_answer(web: Web) -> None:
    web.reply("/0.jpg", replace(redirect(web.url("/1.jpg")), delay_s=0.3))
    web.reply("/1.jpg", Reply(b"a", delay_s=0.3))
    policy = FetchPolicy(timeout_s=0.5, retries=0, allow_private=True)
    assert isinstance(fetch_fails(web.url("/0.jpg"), policy).error, TimeoutFetchError)


def test_a_refused_connection_is_named() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        unfetched = fetch_fails(f"http://127.0.0.1:{port}/")
    assert type(unfetched.error) is FetchError
    assert str(unfetched.error).endswith(f"cannot connect to 127.0.0.1:{port}: Connection refused (after 3 attempts)")


def test_a_server_that_speaks_no_tls_is_named(web: Web) -> None:
    unfetched = fetch_fails(web.url("/a.jpg").replace("http:", "https:"))
    assert "TLS fails" in str(unfetched.error)
    assert unfetched.attempts == 1


def test_a_certificate_that_nobody_trusts_is_named() -> None:
    folder = Path(tornado.test.__file__).parent
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "test.crt", folder / "test.key")

    async def main() -> Fetched | Unfetched:
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
            fetcher = Fetcher(LOOPBACK)
            port = server.sockets[0].getsockname()[1]
            fetched = await fetcher.try_fetch(f"https://127.0.0.1:{port}/a.jpg")
            await fetcher.aclose()
            return fetched

    unfetched = asyncio.run(main())
    assert isinstance(unfetched, Unfetched)
    assert "the server's TLS certificate is refused: self-signed certificate" in str(unfetched.error)
    assert unfetched.attempts == 1


# HTTP: what a server says to robots


@pytest.mark.parametrize("tag", ["noai", "NoIndex, nofollow", "image-pipeline: noimageai", "*: none"])
def test_what_a_server_forbids_is_not_read_nor_asked_again_and_is_told(web: Web, tag: str) -> None:
    """It never ends to send: whoever read it would be heard of no more."""
    url = web.reply("/a.jpg", Reply(fault="drip", headers={"X-Robots-Tag": tag}))
    unfetched = fetch_fails(url)
    assert isinstance(unfetched.error, RobotsError)
    assert "to robots (X-Robots-Tag)" in str(unfetched.error)
    assert (unfetched.robots, unfetched.attempts, web.requests["/a.jpg"]) == (tag, 1, 1)


def test_what_is_forbidden_is_fetched_if_the_user_says_so_and_is_told(web: Web) -> None:
    url = web.reply("/a.jpg", Reply(b"a", headers={"X-Robots-Tag": "noai"}))
    assert fetch(url, replace(LOOPBACK, respect_robots=False)) == Fetched(b"a", 1, "noai")


def test_what_is_said_to_other_robots_is_told_only(web: Web) -> None:
    tags = CIMultiDict([("X-Robots-Tag", "otherbot: noindex"), ("X-Robots-Tag", "nofollow")])
    assert fetch(web.reply("/a.jpg", Reply(b"a", headers=tags))) == Fetched(b"a", 1, "otherbot: noindex, nofollow")


def test_each_of_several_headers_counts(web: Web) -> None:
    tags = CIMultiDict([("X-Robots-Tag", "otherbot: noindex"), ("X-Robots-Tag", "noai")])
    assert isinstance(fetch_fails(web.reply("/a.jpg", Reply(b"a", headers=tags))).error, RobotsError)


def test_the_name_that_the_user_gives_himself_is_his_to_be_forbidden_by(web: Web) -> None:
    url = web.reply("/a.jpg", Reply(b"a", headers={"X-Robots-Tag": "lab-crawler: noindex"}))
    assert fetch(url).data == b"a"
    assert isinstance(fetch_fails(url, replace(LOOPBACK, user_agent="Lab-Crawler/1.0")).error, RobotsError)


def test_an_error_is_told_before_what_it_says_to_robots(web: Web) -> None:
    url = web.reply("/a.jpg", Reply(status=404, headers={"X-Robots-Tag": "noindex"}))
    assert isinstance(fetch_fails(url).error, MissingError)


# HTTP: redirects


def redirect(location: str) -> Reply:
    return Reply(status=302, headers={"Location": location})


def test_redirects_are_followed_up_to_five(web: Web) -> None:
    for number in range(6):
        web.reply(f"/{number}", redirect(f"/{number + 1}"))
    web.serve("/6", b"a")
    assert fetch(web.url("/1")) == Fetched(b"a", 1)
    unfetched = fetch_fails(web.url("/0"))
    assert isinstance(unfetched.error, ServerError)
    assert str(unfetched.error).endswith("more than 5 redirects")


def test_a_redirect_loop_ends(web: Web) -> None:
    unfetched = fetch_fails(web.reply("/loop", redirect("/loop")))
    assert isinstance(unfetched.error, ServerError)
    assert web.requests["/loop"] == 6


def test_credentials_are_sent_to_their_host_only(web: Web) -> None:
    web.serve("/a.jpg", b"a")
    url = web.reply("/first", redirect(web.url("/a.jpg", host="localhost"))).replace("://", "://user:secret@")
    assert fetch(url).data == b"a"
    assert web.headers["/first"]["Authorization"].startswith("Basic ")
    assert "Authorization" not in web.headers["/a.jpg"]


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/a", "s3://b/k", "http://h:99999/", "http://[::1"]
)
def test_a_redirect_leads_nowhere_but_to_http(web: Web, location: str) -> None:
    assert isinstance(fetch_fails(web.reply("/a.jpg", redirect(location))).error, AddressError)


# Addresses


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1.2.3",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "127.1",
        "localhost",
        "LOCALHOST",
        "user:secret@127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "10.0.0.1",
    ],
)
def test_a_private_address_is_not_dialled_however_it_is_written(web: Web, host: str) -> None:
    unfetched = fetch_fails(web.url("/a.jpg", host=host), PUBLIC)
    assert isinstance(unfetched.error, AddressError)
    assert unfetched.attempts == 1
    assert web.connections == 0


def test_a_refused_address_is_named_with_the_way_out(web: Web) -> None:
    assert str(fetch_fails(web.url("/a.jpg"), PUBLIC).error) == (
        f"cannot fetch {web.url('/a.jpg')!r}: 127.0.0.1 is not a public address; "
        "allow private addresses with --allow-private"
    )


def test_a_name_with_several_private_addresses_is_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are dialled in a race, which loses most errors."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("10.0.0.1", 80)),
        (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("fc00::1", 80, 0, 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    unfetched = fetch_fails("http://rebinding.example/a.jpg", PUBLIC)
    assert isinstance(unfetched.error, AddressError)
    assert unfetched.attempts == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "[::ffff:127.0.0.1]", "10.0.0.1"])
def test_a_redirect_to_a_private_address_is_not_followed(web: Web, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    allowed = iter([True])
    monkeypatch.setattr(addresses, "is_public", lambda _: next(allowed, False))
    url = web.reply("/a.jpg", redirect(web.url("/secret.jpg", host=host)))
    assert isinstance(fetch_fails(url, PUBLIC).error, AddressError)
    assert web.connections == 1
    assert web.requests == {"/a.jpg": 1}


@pytest.mark.parametrize("url", ["", "http://", "http:///a", "http://h:99999/", "http://[::1", f"http://{'a' * 64}/"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    unfetched = fetch_fails(url)
    assert isinstance(unfetched.error, AddressError)
    assert str(unfetched.error).startswith(f"cannot fetch {url!r}: it is ")


# Files


def test_a_local_file_is_read_by_path_and_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "50% off? #1::2.jpg"
    path.write_bytes(b"a" * 100_000)
    monkeypatch.chdir(tmp_path)
    for url in (str(path), path.name, f"file://{path}"):
        assert fetch(url, PUBLIC) == Fetched(b"a" * 100_000, 1, fingerprint=of_file(path.stat()))


def test_a_local_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(11))
    assert isinstance(fetch_fails(str(path), FetchPolicy(max_bytes=10)).error, TooLargeError)


def test_what_is_no_regular_file_is_missing(tmp_path: Path) -> None:
    """A pipe would be waited for, and a device read for ever."""
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    for path in (tmp_path / "none.jpg", tmp_path, pipe, pipe / "a.jpg", Path("/dev/zero")):
        assert isinstance(fetch_fails(str(path)).error, MissingError)
    assert isinstance(fetch_fails("nul\0.jpg").error, AddressError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_access_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.touch(mode=0o000)
    assert isinstance(fetch_fails(str(path)).error, AccessError)


def test_another_url_is_read_through_fsspec(web: Web) -> None:
    fsspec.filesystem("memory").pipe_file("/photos/a.jpg", b"abc")
    assert fetch("memory://photos/a.jpg", PUBLIC).data == b"abc"
    assert isinstance(fetch_fails("memory://photos/a.jpg", FetchPolicy(max_bytes=2)).error, TooLargeError)
    assert isinstance(fetch_fails("memory://photos/b.jpg", PUBLIC).error, MissingError)
    # This one is asynchronous.
    url = f"simplecache::{web.serve('/a.jpg', b'a')}"
    assert fetch(url).data == b"a"


# Sessions


def test_a_host_is_asked_over_few_connections_again_and_again(web: Web) -> None:
    urls = [web.serve(f"/{number}.jpg", bytes(10_000)) for number in range(300)]
    policy = FetchPolicy(connections_per_host=4, allow_private=True)
    fetched = with_fetcher(lambda fetcher: asyncio.gather(*map(fetcher.try_fetch, urls)), policy)
    assert fetched == [Fetched(bytes(10_000), 1)] * 300
    assert web.connections <= 4
    assert web.at_once_max <= 4


def test_a_fetch_can_be_cancelled(web: Web) -> None:
    url = web.reply("/a.jpg", Reply(fault="drip"))
    web.serve("/b.jpg", b"b")

    async def main(fetcher: Fetcher) -> Fetched | Unfetched:
        task = asyncio.create_task(fetcher.try_fetch(url))
        await asyncio.to_thread(web.wait_until_asked, "/a.jpg")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await fetcher.try_fetch(web.url("/b.jpg"))

    assert with_fetcher(main, FetchPolicy(connections_per_host=1, allow_private=True)) == Fetched(b"b", 1)


def test_closing_cancels_what_still_runs_or_waits(web: Web) -> None:
    """At once, and without a new session that nobody would close (its warning would fail this test)."""
    url = web.reply("/a.jpg", Reply(fault="drip"))

    async def main() -> list[Fetched | Unfetched | BaseException]:
        fetcher = Fetcher(FetchPolicy(connections_per_host=1, allow_private=True))
        fetches = [asyncio.create_task(fetcher.try_fetch(url)) for _ in range(3)]
        await asyncio.to_thread(web.wait_until_asked, "/a.jpg")
        await fetcher.aclose()
        return await asyncio.gather(*fetches, return_exceptions=True)

    assert [type(result) for result in asyncio.run(main())] == [asyncio.CancelledError] * 3
    gc.collect()
    assert web.requests["/a.jpg"] == 1


def test_a_closed_fetcher_opens_no_new_session(web: Web) -> None:
    url = web.serve("/a.jpg", b"a")

    async def main(fetcher: Fetcher) -> None:
        await fetcher.try_fetch(url)
        await fetcher.aclose()
        with pytest.raises(asyncio.CancelledError, match="the fetcher is closed"):
            await fetcher.try_fetch(url)

    with_fetcher(main)
    assert web.requests["/a.jpg"] == 1
