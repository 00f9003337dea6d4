"""Find out what kind of collection the user points at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from pipeline.domain import Item, ManifestColumns
from pipeline.errors import SourceError
from pipeline.links import follow_within, local_folders
from pipeline.sources.listed import Listed
from pipeline.sources.location import Location, file_name_of, is_web
from pipeline.sources.manifest import Manifest
from pipeline.sources.pattern import split_magic
from pipeline.sources.suffixes import (
    IMAGE_SUFFIXES,
    MANIFEST_SUFFIXES,
    compression_of,
    manifest_suffix_of,
    suffix_of,
)
from pipeline.sources.tree import Tree
from pipeline.urls import is_within, redact

_DEFAULT_COLUMNS: Final = ManifestColumns()


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
    columns: ManifestColumns = _DEFAULT_COLUMNS,
    storage_options: Mapping[str, Any] | None = None,
    exclude: str | None = None,
    places: Sequence[str] | None = None,
    unseal: Callable[[str], str] | None = None,
) -> Collection:
    """Open a folder, a glob, a manifest, one image, or a list of images.

    Little is read: what a folder or manifest holds is found while iterating, which may raise SourceError too.

    Parameters
    ----------
    collection : str, path or sequence of them
        A folder (all images below it), a glob such as ``photos/**/*.jpg`` (whatever matches), a manifest (txt, csv,
        tsv, json, jsonl or ndjson, each also .gz, .bz2, .xz or .zst; parquet, as a file or a folder of files), or an
        image: as a path or a URL (``s3://bucket/photos``, ``https://example.org/list.csv``). An http(s) URL that is
        not called like a manifest is an image. A sequence is a list of images. What exists under a name with ``*``,
        ``?`` or ``[`` in it is that, and no glob.
    columns : ManifestColumns
        The columns of a table, or the fields of JSON, that are read; what but a manifest with columns has none, so
        that nothing but URLs can be asked of it.
    storage_options : mapping, optional
        As in fsspec, for what is neither local nor asked for over HTTP.
    exclude : str, optional
        The destination: if it lies in the folder, its images are not part of the collection.
    places : sequence of str, optional
        What a stranger who has chosen the collection may ask for, by its begin. No link leads out of that, and no
        manifest is read over HTTP: its address is dialled whatever it is.
    unseal : callable, optional
        Opens what is sealed in it, if it is a list that a job has kept itself.

    Returns
    -------
    Collection

    Raises
    ------
    SourceError
        If there is nothing, it cannot be read, or it is of no known kind.
    """
    opened = _open(collection, columns, storage_options, exclude, places)
    if unseal is not None and isinstance(opened, Manifest):
        opened = replace(opened, unseal=unseal)
    unread = columns.names[1:]
    if unread and not (isinstance(opened, Manifest) and opened.has_columns):
        raise SourceError(
            f"cannot read the column {unread[0]!r} of {redact(opened.name)!r}: "
            "allowed are manifests that have columns: .csv, .tsv, .json, .jsonl and .parquet"
        )
    return opened


def folder_of(collection: Collection) -> str | None:
    """Return the local folder that a collection is found in; None if its images are named one by one, or are elsewhere.

    What is found there must not be somewhere else: a link in it is not the user's word.
    """
    return collection.root.path if isinstance(collection, Tree) and collection.root.is_local else None


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


def _open(
    collection: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    columns: ManifestColumns,
    storage_options: Mapping[str, Any] | None,
    exclude: str | None,
    places: Sequence[str] | None,
) -> Collection:
    if not isinstance(collection, str | os.PathLike):
        return Listed.of_entries(collection)
    name = os.fspath(collection)
    if not name.strip():
        raise SourceError(f"cannot read the collection {name!r}: allowed is a folder, glob, URL or manifest")
    if is_web(name):
        return _open_web(name, columns, places is None)
    if "://" in name and "::" in name:
        raise SourceError(f"cannot read {redact(name)!r}: chained URLs (with '::') are not supported")

    location = Location.of(name, storage_options)
    _require_no_way_out(name, location, places)
    destination = None if exclude is None else Location.of(exclude, storage_options)
    match location.find_kind():
        case "folder" if suffix_of(location.file_name) == ".parquet":
            return Manifest.open(name, location, columns)
        case "folder":
            return Tree.of_folder(name, location, destination)
        case "file":
            return _open_file(name, location, columns)
        case "missing" if split_magic(location.path)[1]:
            return Tree.of_glob(name, location, destination)
        case "missing":
            raise SourceError(f"cannot read {redact(name)!r}: no such file or folder")
    raise SourceError(f"cannot read {redact(name)!r}: it is neither file nor folder")


def _require_no_way_out(name: str, location: Location, places: Sequence[str] | None) -> None:
    """Raise SourceError if links bring a stranger elsewhere than he may go."""
    # What he has named is in his places by its text. What is not is a list that the service itself has kept for him.
    if places is None or not location.is_local or not is_within(name, places):
        return
    if follow_within(location.path, local_folders(places)) is None:
        raise SourceError(
            f"cannot read {redact(name)!r}: it is a link that leads out of what a client of the service may ask for"
        )


def _open_web(url: str, columns: ManifestColumns, allow_manifest: bool) -> Collection:
    if manifest_suffix_of(file_name_of(url)) not in MANIFEST_SUFFIXES:
        return Listed(redact(url), (url,))
    if not allow_manifest:
        raise SourceError(f"cannot read the manifest {redact(url)!r} over HTTP: give the URLs that it lists instead")
    return _open_manifest(redact(url), Location.of(url), columns)


def _open_file(name: str, location: Location, columns: ManifestColumns) -> Collection:
    if manifest_suffix_of(location.path) in MANIFEST_SUFFIXES:
        return _open_manifest(name, location, columns)
    if suffix_of(location.path) in IMAGE_SUFFIXES:
        return Listed(name, (location.url,))
    allowed = ", ".join((*MANIFEST_SUFFIXES, *sorted(IMAGE_SUFFIXES)))
    raise SourceError(f"cannot read {redact(name)!r}: neither a manifest nor an image; allowed are {allowed}")


def _open_manifest(name: str, location: Location, columns: ManifestColumns) -> Manifest:
    if manifest_suffix_of(location.file_name) == ".parquet" and compression_of(location.file_name):
        raise SourceError(
            f"cannot read the manifest {redact(name)!r}: Parquet compresses its columns itself; "
            "allowed is .parquet, without another suffix"
        )
    return Manifest.open(name, location, columns)
