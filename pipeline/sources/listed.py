"""Images that are named one by one: a list in Python, one URL, one file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from pipeline.domain import Item
from pipeline.errors import SourceError
from pipeline.sources.keys import key_for_url
from pipeline.sources.location import encodable
from pipeline.storage import absolute


@dataclass(frozen=True, slots=True)
class Listed:
    """Images by URL or absolute path; the key of a path is that of the absolute path, wherever it was typed.

    Attributes
    ----------
    name : str
    urls : tuple of str
    """

    name: str
    urls: tuple[str, ...]

    @classmethod
    def of_entries(cls, entries: Iterable[Any]) -> Self:
        """Take a list of paths and URLs; relative paths are relative to the working directory of now.

        Raises
        ------
        SourceError
            If there is none, or one is neither path nor URL.
        """
        urls = tuple(_url_of(number, entry) for number, entry in enumerate(entries, start=1))
        if not urls:
            raise SourceError("cannot read the list of images: it is empty")
        return cls(f"list of {len(urls)}", urls)

    @property
    def looks_for(self) -> str:
        """What an entry would be."""
        return "paths and URLs"

    def __iter__(self) -> Iterator[Item]:
        for url in self.urls:
            yield Item(key_for_url(url), encodable(url))


def _url_of(number: int, entry: object) -> str:
    text = os.fspath(entry) if isinstance(entry, str | os.PathLike) else None
    if not isinstance(text, str) or not text.strip():
        raise SourceError(f"entry {number} of the list of images is {entry!r}; allowed are paths and URLs")
    return absolute(text)
