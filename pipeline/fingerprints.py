"""Fingerprints of sources: texts that are equal only if a source's bytes are, as far as anybody can tell unread.

An ETag where there is one, else size and time of modification, as rsync and HTTP caches do. Empty: nothing is known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

_ETAG: Final = "etag:"
_MODIFIED: Final = "modified:"

# What the file systems of fsspec call them, in their listings.
_ETAG_NAMES: Final = ("ETag", "etag", "md5Hash", "content_md5")
_TIME_NAMES: Final = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


def of_file(status: os.stat_result) -> str:
    """Return the fingerprint of a local file."""
    return f"file:{status.st_size}-{status.st_mtime_ns}"


def of_listed(entry: Mapping[str, Any]) -> str:
    """Return the fingerprint of what a file system of fsspec has listed."""
    for name in _ETAG_NAMES:
        if entry.get(name):
            return f"{_ETAG}{entry[name]}"
    for name in _TIME_NAMES:
        if entry.get(name) and entry.get("size") is not None:
            return f"file:{entry['size']}-{entry[name]}"
    return ""


def of_answer(headers: Mapping[str, str]) -> str:
    """Return the fingerprint of an HTTP answer; of one that is no ASCII, none."""
    fingerprint = ""
    if etag := headers.get("ETag"):
        fingerprint = _ETAG + etag
    elif modified := headers.get("Last-Modified"):
        fingerprint = _MODIFIED + modified
    return fingerprint if fingerprint.isascii() else ""


def of_promise(expected_hash: str) -> str:
    """Return the fingerprint of bytes whose hash a manifest promises."""
    return f"hash:{expected_hash.lower()}" if expected_hash else ""


def condition(fingerprint: str) -> dict[str, str]:
    """Return the headers that ask an HTTP server for bytes only if they are not those of a fingerprint.

    See RFC 9110, section 13.1: If-None-Match and If-Modified-Since.
    """
    if fingerprint.startswith(_ETAG):
        return {"If-None-Match": fingerprint.removeprefix(_ETAG)}
    if fingerprint.startswith(_MODIFIED):
        return {"If-Modified-Since": fingerprint.removeprefix(_MODIFIED)}
    return {}
