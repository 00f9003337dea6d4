"""A folder's images: their names, with keys and fingerprints, however many there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, NamedTuple, Self

from pipeline.scratch import open_scratch
from pipeline.sources.keys import fold_key, key_for_file, name_files, plain_key

# More names than this wait on disk: a folder of a local disk rarely has as many, a prefix in an object store often.
NAMES_IN_MEMORY: Final = 10_000


class NamedFile(NamedTuple):
    """A file of a folder."""

    name: str
    key: str
    fingerprint: str


class FileNames:
    """The files of a folder that are taken, each with its key: sorted by name, and on disk if they are many.

    A name's key depends on all the others, see `name_files`; what this gives is the same.
    """

    def __init__(self) -> None:
        self._few: dict[str, str] = {}
        self._database: sqlite3.Connection | None = None

    def extend(self, files: Iterable[tuple[str, str]]) -> None:
        """Take further names, each with its fingerprint."""
        self._few.update(files)
        if len(self._few) > NAMES_IN_MEMORY:
            self._spill()

    def named(self) -> Iterator[NamedFile]:
        """Yield each file."""
        if self._database is None:
            for name, key in name_files(sorted(self._few)).items():
                yield NamedFile(name, key, self._few[name])
            return
        self._spill()
        rows = self._database.execute(
            "SELECT name, EXISTS (SELECT 1 FROM names AS other WHERE other.folded = names.folded"
            " AND other.name != names.name), fingerprint FROM names ORDER BY name"
        )
        for name, is_shared, fingerprint in rows:
            decoded = _decoded(name)
            yield NamedFile(decoded, key_for_file(decoded, is_shared=bool(is_shared)), fingerprint)

    def _spill(self) -> None:
        if self._database is None:
            self._database = open_scratch(
                "CREATE TABLE names (name BLOB PRIMARY KEY, folded BLOB, fingerprint TEXT) WITHOUT ROWID",
                "CREATE INDEX folded_names ON names (folded)",
            )
        rows = (
            (_encoded(name), _encoded(fold_key(plain_key(name))), fingerprint)
            for name, fingerprint in self._few.items()
        )
        self._database.executemany("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", rows)
        self._few.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is not None:
            self._database.close()


def _encoded(name: str) -> bytes:
    # As Python sorts: by code point, surrogates included.
    return name.encode("utf-8", "surrogatepass")


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
