"""The keys that a run has met, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.scratch import ScratchTable


class SeenKeys(ScratchTable):
    """A set of keys that grows on disk rather than in memory; of one thread.

    It is how a run drops what its ledger has already and what its collection lists twice, for any number of items.
    """

    def __init__(self) -> None:
        super().__init__("CREATE TABLE keys (key TEXT PRIMARY KEY) WITHOUT ROWID")

    def add(self, key: str) -> bool:
        """Add a key; return whether it is new."""
        return self._database.execute("INSERT OR IGNORE INTO keys VALUES (?)", (key,)).rowcount == 1

    def update(self, keys: Iterable[str]) -> None:
        """Add many keys."""
        self._database.executemany("INSERT OR IGNORE INTO keys VALUES (?)", ((key,) for key in keys))

    def __contains__(self, key: str) -> bool:
        return self._database.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone() is not None

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM keys").fetchone()[0])
