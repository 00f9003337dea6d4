"""What tells that a source has not changed."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from pipeline import fingerprints


def test_a_file_s_fingerprint_changes_with_its_size_and_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"abc")
    os.utime(path, ns=(0, 10**18))
    before = fingerprints.of_file(path.stat())
    os.utime(path, ns=(0, 10**18 + 1))
    touched = fingerprints.of_file(path.stat())
    path.write_bytes(b"abcd")
    os.utime(path, ns=(0, 10**18))
    assert len({before, touched, fingerprints.of_file(path.stat())}) == 3


@pytest.mark.parametrize(
    ("entry", "fingerprint"),
    [
        ({"ETag": '"ab"', "size": 3, "LastModified": "now"}, 'etag:"ab"'),
        ({"md5Hash": "q1w2", "size": 3}, "etag:q1w2"),
        ({"size": 3, "mtime": 1.5}, "file:3-1.5"),
        ({"size": 0, "mtime": 1.5}, "file:0-1.5"),
        ({"size": None, "mtime": 1.5}, ""),
        ({"size": 3}, ""),
    ],
)
def test_a_listing_s_etag_goes_before_its_size_and_time(entry: dict[str, object], fingerprint: str) -> None:
    assert fingerprints.of_listed(entry) == fingerprint


def test_an_object_that_is_written_anew_has_another_fingerprint() -> None:
    fs = fsspec.filesystem("memory")
    try:
        fs.pipe_file("/bucket/a.jpg", b"abc")
        before = fingerprints.of_listed(fs.info("/bucket/a.jpg"))
        fs.pipe_file("/bucket/a.jpg", b"abd")
        assert before
        assert fingerprints.of_listed(fs.info("/bucket/a.jpg")) != before
    finally:
        fs.store.clear()


@pytest.mark.parametrize(
    ("headers", "condition"),
    [
        ({"ETag": 'W/"ab"', "Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}, {"If-None-Match": 'W/"ab"'}),
        (
            {"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"},
            {"If-Modified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"},
        ),
        ({}, {}),
    ],
)
def test_a_server_is_asked_on_condition_of_what_it_said(headers: dict[str, str], condition: dict[str, str]) -> None:
    assert fingerprints.condition(fingerprints.of_answer(headers)) == condition


def test_a_promised_hash_is_a_fingerprint_however_it_is_written() -> None:
    assert fingerprints.of_promise("SHA256:AB") == fingerprints.of_promise("sha256:ab")
    assert fingerprints.of_promise("") == ""


def test_a_header_that_no_ledger_could_hold_is_no_fingerprint() -> None:
    """HTTP's headers may have any bytes: those that are not UTF-8 come as surrogates."""
    assert fingerprints.of_answer({"ETag": '"caf\udce9"'}) == ""
    assert fingerprints.of_answer({"Last-Modified": "caf\udce9"}) == ""
