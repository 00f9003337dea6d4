"""Which image has which key, where the user's names decide: in bounded memory."""

from __future__ import annotations

from hashlib import blake2b

from pipeline.scratch import ScratchTable
from pipeline.sources.keys import digested_key, fold_key, key_for_name


class KeyRegister(ScratchTable):
    """Gives each name a key of its own; kept on disk rather than in memory, for any number of names.

    Keys that only case tells apart are one file on some systems: the later one gets a digest. The same names in the
    same order always get the same keys.
    """

    def __init__(self) -> None:
        super().__init__("CREATE TABLE keys (folded BLOB PRIMARY KEY, name BLOB, url BLOB) WITHOUT ROWID")

    def claim(self, name: str, url: str) -> str | None:
        """Return the key of the image that a row names; None if an earlier row gave the name to another URL."""
        claimed = (_digest(name), _digest(url))
        for key in (key_for_name(name), digested_key(name)):
            holder = self._put(_digest(fold_key(key)), *claimed)
            if holder == claimed:
                return key
            if holder[0] == claimed[0]:
                return None
        return None

    def _put(self, folded: bytes, name: bytes, url: bytes) -> tuple[bytes, bytes]:
        """Give a key to an image unless another has it; return what the key's holder is called and where it is."""
        if self._database.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?)", (folded, name, url)).rowcount:
            return name, url
        holder: tuple[bytes, bytes] = self._database.execute(
            "SELECT name, url FROM keys WHERE folded = ?", (folded,)
        ).fetchone()
        return holder


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
