"""Find out what kind of collection the user points at."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from pipeline.domain import Item
from pipeline.errors import SourceError
from pipeline.sources.listed import Listed
from pipeline.sources.location import Location
from pipeline.sources.manifest import Manifest
from pipeline.sources.pattern import split_magic
from pipeline.sources.suffixes import (
    IMAGE_SUFFIXES,
    MANIFEST_SUFFIXES,
    UNSUPPORTED_MANIFEST_SUFFIXES,
    manifest_suffix_of,
    suffix_of,
)
from pipeline.sources.tree import Tree
from pipeline.urls import redact


class Collection(Protocol):
    """What the user points at: Items, found while iterating and the same each time."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def looks_for(self) -> str:
        """What would be an image of it, for the message that there is none."""

    def __iter__(self) -> Iterator[Item]:
        """Begin anew, and yield the same Items in the same order as ever."""


def open_collection(
    collection: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    url_column: str = "url",
    storage_options: Mapping[str, Any] | None = None,
    exclude: str | None = None,
) -> Collection:
    """Open a folder, a glob, a manifest, one image, or a list of images.

    Little is read: what a folder or manifest holds is found while iterating, which may raise SourceError too.

    Parameters
    ----------
    collection : str, path or sequence of them
        A folder (all images below it), a glob such as ``photos/**/*.jpg`` (whatever matches), a manifest (txt, csv,
        tsv, jsonl or ndjson, each also .gz), or an image: as a path or an fsspec URL (``s3://bucket/photos``). An
        http(s) URL is always an image. A sequence is a list of images. What exists under a name with ``*``, ``?`` or
        ``[`` in it is that, and no glob.
    url_column : str
        The column of a csv or tsv manifest, or the field of a jsonl one, that holds the URLs.
    storage_options : mapping, optional
        As in fsspec, for what is not local.
    exclude : str, optional
        The destination: if it lies in the folder, its images are not part of the collection.

    Returns
    -------
    Collection

    Raises
    ------
    SourceError
        If there is nothing, it cannot be read, or it is of no known kind.
    """
    if not isinstance(collection, str | os.PathLike):
        return Listed.of_entries(collection)
    name = os.fspath(collection)
    if not name.strip():
        raise SourceError(f"cannot read the collection {name!r}: allowed is a folder, glob, URL or manifest")
    if name.lower().startswith(("http://", "https://")):
        return _open_http(name)
    if "://" in name and "::" in name:
        raise SourceError(f"cannot read {redact(name)!r}: chained URLs (with '::') are not supported")

    location = Location.of(name, storage_options)
    destination = None if exclude is None else Location.of(exclude, storage_options)
    match location.find_kind():
        case "folder":
            return Tree.of_folder(name, location, destination)
        case "file":
            return _open_file(name, location, url_column)
        case "missing" if split_magic(location.path)[1]:
            return Tree.of_glob(name, location, destination)
        case "missing":
            raise SourceError(f"cannot read {redact(name)!r}: no such file or folder")
    raise SourceError(f"cannot read {redact(name)!r}: it is neither file nor folder")


def first_item(collection: Collection) -> Item:
    """Return the first Item, which tells that there is one.

    Raises
    ------
    SourceError
        If the collection is empty.
    """
    for item in collection:
        return item
    raise SourceError(f"no images in {redact(collection.name)!r}; looked for {collection.looks_for}")


def _open_http(url: str) -> Collection:
    shown = redact(url)
    if manifest_suffix_of(re.split("[?#]", url, maxsplit=1)[0]) in (*MANIFEST_SUFFIXES, *UNSUPPORTED_MANIFEST_SUFFIXES):
        raise SourceError(f"cannot read the manifest {shown!r} over HTTP: download it first")
    return Listed(shown, (url,))


def _open_file(name: str, location: Location, url_column: str) -> Collection:
    if manifest_suffix_of(location.path) in MANIFEST_SUFFIXES:
        return Manifest.open(name, location, url_column)
    if suffix_of(location.path) in IMAGE_SUFFIXES:
        return Listed(name, (location.url,))
    allowed = ", ".join((*MANIFEST_SUFFIXES, *sorted(IMAGE_SUFFIXES)))
    if manifest_suffix_of(location.path) in UNSUPPORTED_MANIFEST_SUFFIXES:
        allowed = ", ".join(MANIFEST_SUFFIXES)
        raise SourceError(f"cannot read the manifest {redact(name)!r}: allowed are {allowed}, each also .gz")
    raise SourceError(f"cannot read {redact(name)!r}: neither a manifest nor an image; allowed are {allowed}")
