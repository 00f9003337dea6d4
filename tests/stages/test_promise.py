"""Rules of what a manifest promises about an image's bytes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import HashError
from pipeline.stages.promise import parse_hash, require_hash


@given(st.binary(), st.sampled_from(["md5", "sha1", "sha256", "sha512"]), st.booleans(), st.booleans())
def test_the_hash_of_the_bytes_is_kept_however_it_is_written(
    data: bytes, algorithm: str, has_prefix: bool, is_upper: bool
) -> None:
    digits = hashlib.new(algorithm, data).hexdigest()
    text = f"{algorithm}: {digits}" if has_prefix else digits
    assert parse_hash(f" {text.upper() if is_upper else text} ") == (algorithm, digits)
    require_hash(data, algorithm, digits)
    with pytest.raises(HashError, match=rf"^its {algorithm} is \w+, but its manifest promises {digits}; \d+ bytes"):
        require_hash(data + b"x", algorithm, digits)


@pytest.mark.parametrize("text", ["abc", "sha256:abc", "crc32:" + "a" * 8, "g" * 64, "md5:" + "a" * 64, ":", "é" * 64])
def test_what_is_no_hash_says_which_are(text: str) -> None:
    with pytest.raises(HashError, match=r"^its manifest's hash is .*; allowed are md5: and 32, sha1: and 40"):
        parse_hash(text)
