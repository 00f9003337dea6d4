"""Where local paths lead, if links on the way are followed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import fsspec

from pipeline.urls import scheme_of


def follow_within(path: str, folders: Iterable[str]) -> str | None:
    """Return where a path leads, which has no links in it any more; None if that is in none of the folders."""
    found = os.path.realpath(path)
    for folder in map(os.path.realpath, folders):
        if found == folder or found.startswith(folder.rstrip(os.sep) + os.sep):
            return found
    return None


def local_folders(places: Sequence[str]) -> list[str]:
    """Return those of some places that are on the local disk, as paths."""
    return [fsspec.core.strip_protocol(place) for place in places if scheme_of(place) in {"file", "local"}]
