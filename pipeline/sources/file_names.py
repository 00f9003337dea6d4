"""A folder's images' names with their keys, however many there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from pipeline.scratch import open_scratch
from pipeline.sources.keys import fold_key, key_for_file, name_files, plain_key

# More names than this wait on disk: a folder of a local disk rarely has as many, a prefix in an object store often.
NAMES_IN_MEMORY: Final = 10_000


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
            self._database = open_scratch(
                "CREATE TABLE names (name BLOB PRIMARY KEY, folded BLOB) WITHOUT ROWID",
                "CREATE INDEX folded_names ON names (folded)",
            )
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


def _encoded(name: str) -> bytes:
    # As Python sorts: by code point, surrogates included.
    return name.encode("utf-8", "surrogatepass")


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
