from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.urls import is_within, redact, redact_within, scheme_of


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/a.jpg", "http://h/a.jpg"),
        ("http://user:secret@h/a.jpg", "http://h/a.jpg"),
        ("https://h/a.jpg?sig=secret", "https://h/a.jpg?…"),
        ("https://user:se@cret@h:1/a@b.jpg?sig=secret#secret", "https://h:1/a@b.jpg?…"),
        ("http://h/a.jpg#secret", "http://h/a.jpg"),
        ("https://h/p#token=secret?x", "https://h/p"),
        ("https://user:secret@h/p#token=secret?x@y", "https://h/p"),
        ("zip://a.jpg::https://user:secret@h/a.zip?sig=secret", "zip://a.jpg::https://h/a.zip?…"),
        ("photos/what? me@home #1.jpg", "photos/what? me@home #1.jpg"),
    ],
)
def test_redact_hides_credentials(url: str, shown: str) -> None:
    assert redact(url) == shown


SECRET = st.text("secrt0123456789@:&=%~;", min_size=1).map("SECRET".__add__)


@given(scheme=st.sampled_from(["http", "https", "s3", "ftp"]), password=SECRET, query=SECRET, fragment=SECRET)
def test_redact_hides_whatever_the_password_and_the_query_are(
    scheme: str, password: str, query: str, fragment: str
) -> None:
    shown = redact(f"{scheme}://user:{password}@host/a.jpg?key={query}#{fragment}")
    assert shown == f"{scheme}://host/a.jpg?…"


@given(st.text())
def test_redact_is_idempotent(url: str) -> None:
    assert redact(redact(url)) == redact(url)


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("HTTPS://h/", "https"),
        ("s3://b/k", "s3"),
        ("simplecache::http://h/", "simplecache"),
        ("a.jpg", "file"),
        ("/a::b/http.jpg", "file"),
        ("C:a.jpg", "file"),
    ],
)
def test_scheme_of_a_path_is_file(url: str, scheme: str) -> None:
    assert scheme_of(url) == scheme


@given(st.text("ab c'\"/?#@:", max_size=30))
def test_redact_within_leaves_text_without_urls_as_it_is(text: str) -> None:
    text = text.replace("://", "")
    assert redact_within(text) == text


def test_redact_within_hides_the_secrets_of_every_url() -> None:
    text = 'no "ftp://me:secret@h/a" and no http://h/b?sig=secret here'
    assert redact_within(text) == 'no "ftp://h/a" and no http://h/b?… here'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot fetch 'https://h/a?sig=a'b&token=XYZ': no answer", "cannot fetch 'https://h/a?…': no answer"),
        ("https://h/a?sig=a'b&token=XYZ is gone", "https://h/a?… is gone"),
        ('"https://h/a?sig=a"b<c>&token=XYZ", and', '"https://h/a?…", and'),
        ("URL('https://u:p@h/a#b'c'), then", "URL('https://h/a'), then"),
        ("'https://h/a?…': shown already", "'https://h/a?…': shown already"),
        ("'https://h/it's/b' is plain", "'https://h/it's/b' is plain"),
    ],
)
def test_redact_within_takes_a_quote_in_a_secret_for_no_end(text: str, shown: str) -> None:
    """What follows a quote, up to white space, is as secret; the quote around the URL is kept."""
    assert redact_within(text) == shown
    assert redact_within(shown) == shown


@given(quote=st.sampled_from(["", "'", '"']), query=st.text("s3'\"<>&=:,.)", min_size=1).map("SECRET{}SECRET".format))
def test_redact_within_hides_whatever_the_query_is(quote: str, query: str) -> None:
    assert "SECRET" not in redact_within(f"no {quote}https://h/a.jpg?{query}{quote}: it is gone")


@pytest.mark.parametrize(
    "url",
    ["s3://open/a.jpg", "s3://open/a/b c.jpg", "s3://open", "HTTP://a.example/x/../y?z=1", "/srv/up/0001-50%.jpg"],
)
def test_what_lies_below_an_open_place_is_within_it(url):
    assert is_within(url, ("s3://open", "http://", "/srv/up"))


@pytest.mark.parametrize(
    "url",
    [
        "s3://opening/a.jpg",
        "s3://open/../secret/a.jpg",
        "s3://open/%2e%2e/secret",
        "s3://open//secret",
        "simplecache::s3://open/a.jpg",
        "S3://open/a.jpg",
        "file:///srv/up/a.jpg",
        "/srv/up/../../etc/passwd",
        "/srv/upper/a.jpg",
        "/etc/passwd",
        "https://a.example/",
        "httpx://a",
        "",
        "..",
    ],
)
def test_what_lies_elsewhere_is_not_however_it_is_written(url):
    assert not is_within(url, ("s3://open", "http://", "/srv/up"))
