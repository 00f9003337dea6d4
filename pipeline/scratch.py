"""A table for the time of one iteration, on disk rather than in memory."""

from __future__ import annotations

import sqlite3
from types import TracebackType
from typing import Self


class ScratchTable:
    """What keeps its rows in an empty database that is gone when it is closed; of one thread.

    Parameters
    ----------
    *schema : str
        The statements that make its tables.
    """

    def __init__(self, *schema: str) -> None:
        self._database = open_scratch(*schema)

    def close(self) -> None:
        """Remove the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_scratch(*schema: str) -> sqlite3.Connection:
    """Open an empty database that is gone when it is closed.

    Parameters
    ----------
    *schema : str
        The statements that make its tables.

    Returns
    -------
    sqlite3.Connection
        In one transaction for all: nobody else reads it, and nothing is ever rolled back.
    """
    # An empty name is a temporary database: SQLite keeps it in a small cache and spills the rest to a file.
    # A generator that holds it may be closed by another thread than the one that ran it.
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for statement in ("PRAGMA journal_mode = OFF", *schema, "BEGIN"):
        database.execute(statement)
    return database
