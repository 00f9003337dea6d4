from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StateError
from pipeline.state import connect
from pipeline.state.connection import redact_url

secrets = st.text(st.characters(codec="ascii", categories=["L", "N", "P"], exclude_characters="&#"), min_size=1)


@given(secrets)
def test_a_redacted_url_has_no_password(secret: str) -> None:
    assert redact_url(f"redis://user:{secret}@host:6379/0") == "redis://***@host:6379/0"
    assert redact_url(f"unix:///run/redis.sock?db=1&password={secret}&x=1") == (
        "unix:///run/redis.sock?db=1&password=***&x=1"
    )


def test_a_server_that_refuses_is_named_in_one_line_without_its_password(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(StateError) as caught:
            connect(f"redis://:s3cret@127.0.0.1:{port}/0", tmp_path)
    assert str(caught.value).startswith(f"Redis at redis://***@127.0.0.1:{port}/0 does not answer as it should: ")
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_says_nothing_is_given_up_within_four_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(StateError, match="Timeout"):
            connect(f"redis://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("url", ["http://host", "redis://:pa/ss@host", "redis://host?nonsense=1", "host:6379"])
def test_a_url_that_means_nothing_says_what_is_allowed(url: str, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="allowed is redis://HOST") as caught:
        connect(url, tmp_path)
    assert "pa" not in str(caught.value).split("Redis URL")[0]
    assert caught.value.__cause__ is None
