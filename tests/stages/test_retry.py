from __future__ import annotations

import pickle
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from botocore.exceptions import BotoCoreError, NoCredentialsError  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import FetchPolicy
from pipeline.errors import (
    AccessError,
    AddressError,
    FetchError,
    MissingError,
    ServerError,
    TimeoutFetchError,
    TooLargeError,
)
from pipeline.stages.addresses import NotPublicError
from pipeline.stages.retry import (
    BACKOFF_CAP_S,
    RETRY_AFTER_CAP_S,
    StatusError,
    Trouble,
    backoff_s,
    explain,
    parse_retry_after,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOST = ConnectionKey("h", 80, False, True, None, None, None)


@pytest.mark.parametrize(
    ("status", "kind", "may_pass"),
    [
        (400, ServerError, False),
        (401, AccessError, False),
        (403, AccessError, False),
        (404, MissingError, False),
        (408, ServerError, True),
        (410, MissingError, False),
        (425, ServerError, True),
        (429, ServerError, True),
        (500, ServerError, True),
        (501, ServerError, False),
        (502, ServerError, True),
        (503, ServerError, True),
        (504, ServerError, True),
        (599, ServerError, False),
    ],
)
def test_a_status_decides_the_error_and_whether_it_may_pass(
    status: int, kind: type[FetchError], may_pass: bool
) -> None:
    trouble = explain(StatusError(status), FetchPolicy(), NOW)
    assert (trouble.kind, trouble.may_pass) == (kind, may_pass)
    assert str(status) in trouble.why


@pytest.mark.parametrize(
    ("error", "kind", "why", "may_pass"),
    [
        (TooLargeError("too much"), TooLargeError, "too much", False),
        (TimeoutError(), TimeoutFetchError, "no whole answer in 1.5 s", True),
        (aiohttp.ServerTimeoutError(), TimeoutFetchError, "its server sends nothing for 0.5 s", True),
        (FileNotFoundError("/a"), MissingError, "no such file", False),
        (NotADirectoryError(), MissingError, "no such file", False),
        (IsADirectoryError(), MissingError, "it is a folder", False),
        (PermissionError("Access Denied"), AccessError, "Access Denied", False),
        (ConnectionResetError(104, "Connection reset by peer"), FetchError, "Connection reset by peer", True),
        (OSError(5, "Input/output error"), FetchError, "Input/output error", False),
        (ImportError("install gcsfs"), FetchError, "install gcsfs", False),
        (
            NoCredentialsError(),
            AccessError,
            "there are no credentials; give storage_options=, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the "
            "environment",
            False,
        ),
        (BotoCoreError(), FetchError, "An unspecified error occurred", False),
        (ValueError("embedded null byte"), AddressError, "it is no valid URL or path", False),
        (aiohttp.InvalidURL("http://u:p@"), AddressError, "it is no valid URL", False),
        (aiohttp.ClientPayloadError(), ServerError, "the body ends early or is damaged", True),
        (aiohttp.ServerDisconnectedError(), ServerError, "the server closed the connection before the end", True),
        (aiohttp.ClientError("?"), ServerError, "the answer is no valid HTTP", False),
        (
            aiohttp.ClientConnectorError(HOST, NotPublicError("10.0.0.1")),
            AddressError,
            "10.0.0.1 is not a public address; allow private addresses with --allow-private",
            False,
        ),
        (
            aiohttp.ClientConnectorDNSError(HOST, socket.gaierror(socket.EAI_NONAME, "Name or service not known")),
            FetchError,
            "host 'h' has no address: Name or service not known",
            False,
        ),
        (
            aiohttp.ClientConnectorDNSError(HOST, socket.gaierror(socket.EAI_AGAIN, "Temporary failure")),
            FetchError,
            "host 'h' has no address: Temporary failure",
            True,
        ),
        (
            aiohttp.ClientConnectorError(HOST, OSError("Multiple exceptions: this, that")),
            FetchError,
            "cannot connect to h:80: Multiple exceptions: this, that",
            True,
        ),
    ],
)
def test_an_error_is_explained(error: Exception, kind: type[FetchError], why: str, may_pass: bool) -> None:
    assert explain(error, FetchPolicy(timeout_s=1.5), NOW) == Trouble(kind, why, may_pass)


def test_a_message_names_the_url_without_its_secrets_and_the_attempts() -> None:
    trouble = Trouble(MissingError, "no such file")
    assert str(trouble.to_error("a.jpg", 1)) == "cannot fetch 'a.jpg': no such file"
    error = trouble.to_error("http://u:p@h/a.jpg?sig=1", 3)
    assert str(error) == "cannot fetch 'http://h/a.jpg?…': no such file (after 3 attempts)"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_backoff_doubles_up_to_its_cap() -> None:
    assert [backoff_s(attempt, 0, 1) for attempt in (1, 2, 3, 4, 1000)] == [0.2, 0.4, 0.8, 1.6, BACKOFF_CAP_S]


@given(attempt=st.integers(1, 10_000), retry_after_s=st.floats(0, 60), jitter=st.floats(0, 1))
def test_backoff_never_comes_before_retry_after(attempt: int, retry_after_s: float, jitter: float) -> None:
    assert retry_after_s <= backoff_s(attempt, retry_after_s, jitter) <= retry_after_s + BACKOFF_CAP_S


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("7", 7),
        (" 7 ", 7),
        ("9" * 5000, RETRY_AFTER_CAP_S),
        ("-1", 0),
        ("soon", 0),
        (format_datetime(NOW + timedelta(seconds=9), usegmt=True), 9),
        (format_datetime(NOW + timedelta(seconds=9)).replace("+0000", "-0000"), 9),
        (format_datetime(NOW + timedelta(days=9), usegmt=True), RETRY_AFTER_CAP_S),
        (format_datetime(NOW - timedelta(days=9), usegmt=True), 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_retry_after_of_any_text_is_from_0_to_its_cap(value: str) -> None:
    assert 0 <= parse_retry_after(value, NOW) <= RETRY_AFTER_CAP_S
