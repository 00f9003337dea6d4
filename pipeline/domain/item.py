"""An image of a collection, and how a manifest tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.urls import redact


@dataclass(frozen=True, slots=True)
class SourceVersion:
    """Which bytes a source had at some time.

    Attributes
    ----------
    fingerprint : str
        Equal only if the bytes are, as far as can be told without reading them, see `pipeline.fingerprints`; empty if
        nothing is known.
    sha256 : str
        Of the bytes; empty if they were not read.
    """

    fingerprint: str = ""
    sha256: str = ""


UNKNOWN_VERSION: Final = SourceVersion()


@dataclass(frozen=True, slots=True, repr=False)
class Item:
    """One image of a collection.

    Attributes
    ----------
    key : str
        Stable, unique in its job and safe as a relative file name: the output's name without its suffix.
    url : str
        Where its bytes are: an http(s) URL, a local path, or another URL that fsspec opens; empty with a `problem`.
    expected_hash : str
        What its manifest promises about its bytes, as written there; empty for nothing.
    extra : tuple of (str, str or None)
        Further columns of its manifest, by name, as text.
    problem : str
        Why its manifest's row names no image; empty if it does.
    fingerprint : str
        What the listing that it was found in tells of its bytes, see `SourceVersion`; empty for nothing.
    stored_from : SourceVersion or None
        What the image that is at the destination was made of: from these bytes, it need not be made again.
    sealed_url : str
        The URL as it may be written down, if it has a secret; else empty. See `pipeline.sealing`.
    """

    key: str
    url: str
    expected_hash: str = ""
    extra: tuple[tuple[str, str | None], ...] = ()
    problem: str = ""
    fingerprint: str = ""
    stored_from: SourceVersion | None = None
    sealed_url: str = ""

    def __repr__(self) -> str:
        # Dask logs what a task that failed was given.
        return f"Item({self.key!r}, {redact(self.url)!r})"


@dataclass(frozen=True, slots=True)
class ManifestColumns:
    """Which of a manifest's columns say what.

    Attributes
    ----------
    url : str
        URLs or paths.
    key : str or None
        The names of the results; None: they are made of the URLs.
    hash : str or None
        What the fetched bytes are to be; None: anything.
    carry : tuple of str
        What else is written into the ledger.
    """

    url: str = "url"
    key: str | None = None
    hash: str | None = None
    carry: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are to be read: the URL's, the key's and the hash's if they are named, and the rest."""
        return tuple(name for name in (self.url, self.key, self.hash, *self.carry) if name is not None)
