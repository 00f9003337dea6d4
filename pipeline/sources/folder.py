"""What is directly in a folder, a page at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from fsspec import AbstractFileSystem

from pipeline import fingerprints


class Entry(NamedTuple):
    """A file or folder.

    Attributes
    ----------
    name : str
    is_folder : bool
    fingerprint : str
        Of a file's bytes, see `pipeline.fingerprints`.
    size : int or None
        Of a file, in bytes; None if it is not known.
    """

    name: str
    is_folder: bool
    fingerprint: str = ""
    size: int | None = None


def list_local(path: str) -> Iterator[list[Entry]]:
    """Yield the files and folders in a local folder; not links to folders, devices and pipes.

    A link to nothing is a file, one that cannot be read.
    """
    # Faster than fsspec's, and it tells links apart.
    with os.scandir(path) as entries:
        while page := [entry for _, entry in zip(range(1000), entries, strict=False)]:
            yield [_local_entry(entry) for entry in page if _is_listed(entry)]


def list_remote(fs: AbstractFileSystem, path: str) -> Iterator[list[Entry]]:
    """Yield the files and folders in a folder of any other file system: in pages of S3, all at once of the others."""
    if {"s3", "s3a"}.intersection(fs.protocol) and not fs.version_aware:
        yield from _list_s3(fs, path)
        return
    page = []
    for entry in fs.ls(path, detail=True):
        below = entry["name"].rstrip("/")
        # Object stores also list the empty object that stands for the folder itself.
        if below.strip("/") != path.strip("/") and entry["type"] in {"file", "directory"}:
            is_folder = entry["type"] == "directory"
            fingerprint = "" if is_folder else fingerprints.of_listed(entry)
            page.append(Entry(below.rpartition("/")[2], is_folder, fingerprint, entry.get("size")))
    yield page


def _list_s3(fs: Any, path: str) -> Iterator[list[Entry]]:
    # s3fs' own listings hold a dictionary for each key, a kilobyte of it, until the last page has come.
    bucket, key, _ = fs.split_path(path)
    prefix = f"{key.rstrip('/')}/" if key else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/"}
    start = len(prefix)
    while True:
        answer = fs.call_s3("list_objects_v2", **request)
        files = (
            Entry(found["Key"][start:], False, fingerprints.of_listed(found), found.get("Size"))
            for found in answer.get("Contents", ())
        )
        folders = (Entry(found["Prefix"][start:-1], True) for found in answer.get("CommonPrefixes", ()))
        # Without a name: the empty object that stands for the folder itself, and what is called a//b.
        yield [entry for entry in (*files, *folders) if entry.name]
        if not answer.get("IsTruncated"):
            return
        request["ContinuationToken"] = answer["NextContinuationToken"]


def _local_entry(entry: os.DirEntry[str]) -> Entry:
    if entry.is_dir(follow_symlinks=False):
        return Entry(entry.name, True)
    try:
        status = entry.stat()
    except OSError:
        # A link to nothing.
        return Entry(entry.name, False)
    return Entry(entry.name, False, fingerprints.of_file(status), status.st_size)


def _is_listed(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False):
        return True
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))  # noqa: PTH110
    except OSError:
        # A link in a circle, or into a folder that is closed to us: one image that cannot be read.
        return True
