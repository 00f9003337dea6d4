"""Whether what ledgers call stored is still there."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import Any

from pipeline.errors import DestinationError
from pipeline.scratch import ScratchTable
from pipeline.sources.folder import list_remote
from pipeline.storage import open_folder, storage_errors
from pipeline.urls import redact


class Places(ScratchTable):
    """The files of a destination: locally each is looked at, elsewhere whole folders are listed, once.

    Parameters
    ----------
    storage_options : mapping, optional
        As in fsspec.
    """

    def __init__(self, storage_options: Mapping[str, Any] | None = None) -> None:
        self._storage_options = storage_options
        self._listed: set[str] = set()
        super().__init__("CREATE TABLE files (place TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID")

    def has(self, place: str, size: int | None) -> bool:
        """Whether there is a file at a path or URL, of that size in bytes if one is given.

        Raises
        ------
        DestinationError
            If that cannot be found out.
        """
        found = self._size_of(place)
        return found is not None and (size is None or found == size)

    def _size_of(self, place: str) -> int | None:
        if "://" not in place:
            try:
                return os.stat(place).st_size  # noqa: PTH116  # a million times
            except OSError:
                return None
        folder = posixpath.dirname(place)
        if folder not in self._listed:
            self._list(folder)
            self._listed.add(folder)
        row = self._database.execute("SELECT size FROM files WHERE place = ?", (place,)).fetchone()
        return None if row is None else row[0]

    def _list(self, folder: str) -> None:
        with storage_errors(DestinationError, f"cannot list {redact(folder)!r}"):
            fs, path = open_folder(folder, self._storage_options)
            try:
                for page in list_remote(fs, path):
                    files = ((f"{folder}/{each.name}", each.size) for each in page if not each.is_folder)
                    self._database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", files)
            except FileNotFoundError:
                return
