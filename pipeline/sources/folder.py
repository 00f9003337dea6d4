"""What is directly in a folder, a page at a time; and its images' names with their keys, however many there are."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Self

from fsspec import AbstractFileSystem

from pipeline.sources.keys import fold_key, key_for_file, name_files, plain_key

# More names than this wait on disk: a folder of a local disk rarely has as many, a prefix in an object store often.
NAMES_IN_MEMORY: Final = 10_000

# The name of an entry, and whether it is a folder.
Entry = tuple[str, bool]


class FileNames:
    """The names of a folder's files that are taken, each with its key: sorted, and on disk if they are many.

    A name's key depends on all the others, see `name_files`; what this gives is the same.
    """

    def __init__(self) -> None:
        self._few: list[str] = []
        self._database: sqlite3.Connection | None = None

    def extend(self, names: Iterable[str]) -> None:
        """Take further names."""
        self._few += names
        if len(self._few) > NAMES_IN_MEMORY:
            self._spill()

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield each name with its key."""
        if self._database is None:
            yield from name_files(sorted(self._few)).items()
            return
        self._spill()
        rows = self._database.execute(
            "SELECT name, EXISTS (SELECT 1 FROM names AS other WHERE other.folded = names.folded"
            " AND other.name != names.name) FROM names ORDER BY name"
        )
        for name, is_shared in rows:
            decoded = _decoded(name)
            yield decoded, key_for_file(decoded, is_shared=bool(is_shared))

    def _spill(self) -> None:
        if self._database is None:
            # An empty name is a temporary database: SQLite spills it to a file that is gone when it is closed.
            # A generator that holds it may be closed by another thread than the one that ran it.
            self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.execute("CREATE TABLE names (name BLOB PRIMARY KEY, folded BLOB) WITHOUT ROWID")
            self._database.execute("CREATE INDEX folded_names ON names (folded)")
            self._database.execute("BEGIN")
        rows = ((_encoded(name), _encoded(fold_key(plain_key(name)))) for name in self._few)
        self._database.executemany("INSERT OR IGNORE INTO names VALUES (?, ?)", rows)
        self._few.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is not None:
            self._database.close()


def list_local(path: str) -> Iterator[list[Entry]]:
    """Yield the files and folders in a local folder; not links to folders, devices and pipes.

    A link to nothing is a file, one that cannot be read.
    """
    # Ten times as fast as fsspec's, which asks for the size of every file, and it tells links apart.
    with os.scandir(path) as entries:
        while page := [entry for _, entry in zip(range(1000), entries, strict=False)]:
            yield [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in page if _is_listed(entry)]


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
            page.append((below.rpartition("/")[2], entry["type"] == "directory"))
    yield page


def _list_s3(fs: Any, path: str) -> Iterator[list[Entry]]:
    # s3fs' own listings hold a dictionary for each key, a kilobyte of it, until the last page has come.
    bucket, key, _ = fs.split_path(path)
    prefix = f"{key.rstrip('/')}/" if key else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/"}
    start = len(prefix)
    while True:
        answer = fs.call_s3("list_objects_v2", **request)
        files = ((found["Key"][start:], False) for found in answer.get("Contents", ()))
        folders = ((found["Prefix"][start:-1], True) for found in answer.get("CommonPrefixes", ()))
        # Without a name: the empty object that stands for the folder itself, and what is called a//b.
        yield [entry for entry in (*files, *folders) if entry[0]]
        if not answer.get("IsTruncated"):
            return
        request["ContinuationToken"] = answer["NextContinuationToken"]


def _is_listed(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False) or entry.is_file():
        return True
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110


def _encoded(name: str) -> bytes:
    # As Python sorts: by code point, surrogates included.
    return name.encode("utf-8", "surrogatepass")


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
