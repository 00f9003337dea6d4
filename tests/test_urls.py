from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.urls import redact, redact_within, scheme_of


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/a.jpg", "http://h/a.jpg"),
        ("http://user:secret@h/a.jpg", "http://h/a.jpg"),
        ("https://h/a.jpg?sig=secret", "https://h/a.jpg?…"),
        ("https://user:se@cret@h:1/a@b.jpg?sig=secret#secret", "https://h:1/a@b.jpg?…"),
        ("http://h/a.jpg#secret", "http://h/a.jpg"),
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
