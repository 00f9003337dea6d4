"""A folder or a glob: its images, found by listing one directory at a time."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from pipeline.domain import Item
from pipeline.errors import SourceError
from pipeline.sources.file_names import FileNames
from pipeline.sources.keys import name_folders
from pipeline.sources.location import Location, encodable, reading
from pipeline.sources.pattern import Pattern, split_magic
from pipeline.sources.suffixes import IMAGE_SUFFIXES, suffix_of
from pipeline.urls import redact

LEDGER_FOLDER: Final = "_ledger"


class _Folder(NamedTuple):
    relative: str
    key: str
    positions: frozenset[int]


@dataclass(frozen=True, slots=True)
class Tree:
    """The images below a folder: all of them, or those whose paths match a pattern.

    The files of a folder come first, by name, then its folders. Names that begin with a dot, links to folders, the
    destination and the ledgers are left out. Memory is bounded by the most folders of one: names of files wait on disk
    where they are many. A folder within that may not be listed is one Item whose URL is the folder: it fails when
    fetched, is counted, and stops nothing else. Objects with an empty component in their key (``a//b.jpg``) are not
    seen, since fsspec lists no such folder.

    Attributes
    ----------
    name : str
    looks_for : str
    root : Location
    pattern : Pattern
    is_images_only : bool
        Whether a file must have a known image's suffix too.
    excluded : str or None
        A folder that is not entered, as a path below the root.
    """

    name: str
    looks_for: str
    root: Location
    pattern: Pattern
    is_images_only: bool
    excluded: str | None = None

    @classmethod
    def of_folder(cls, name: str, root: Location, destination: Location | None) -> Self:
        """Take all images below a folder.

        Raises
        ------
        SourceError
            If it cannot be listed, or is the destination.
        """
        looks_for = ", ".join(sorted(IMAGE_SUFFIXES))
        return cls(name, looks_for, _checked(root), Pattern.parse("**"), True, _place_below(root, destination))

    @classmethod
    def of_glob(cls, name: str, location: Location, destination: Location | None) -> Self:
        """Take whatever files match the pattern that the location's path is.

        Raises
        ------
        SourceError
            If the folder in front of the first wildcard cannot be listed, or is the destination.
        """
        fixed, glob = split_magic(location.path)
        root = Location(location.fs, fixed, location.url.rstrip("/").removesuffix(glob))
        return cls(
            name, "files that match", _checked(root), Pattern.parse(glob), False, _place_below(root, destination)
        )

    def __iter__(self) -> Iterator[Item]:
        # A stack rather than recursion: no depth of folders exhausts it.
        pending = [_Folder("", "", self.pattern.start)]
        while pending:
            folder = pending.pop()
            location = self.root.below(folder.relative)
            with FileNames() as files:
                folders: list[str] = []
                with reading(location.url):
                    try:
                        self._read_folder(folder, location, files, folders)
                    except PermissionError:
                        if not folder.relative:
                            raise
                        yield Item(f"{folder.key}unreadable", encodable(location.url))
                        continue
                for name, key, fingerprint in files.named():
                    yield Item(folder.key + key, encodable(location.below(name).url), fingerprint=fingerprint)
            pending += reversed([*self._subfolders(folder, sorted(folders))])

    def _read_folder(self, folder: _Folder, location: Location, files: FileNames, folders: list[str]) -> None:
        for page in location.list_folder():
            taken = (each for each in page if not each.is_folder and self._takes(folder, each.name))
            files.extend((each.name, each.fingerprint) for each in taken)
            folders += (each.name for each in page if each.is_folder)

    def _takes(self, folder: _Folder, name: str) -> bool:
        has_suffix = not self.is_images_only or suffix_of(name) in IMAGE_SUFFIXES
        return has_suffix and self.pattern.accepts(folder.positions, name)

    def _subfolders(self, folder: _Folder, names: list[str]) -> Iterator[_Folder]:
        # Left out before keys are given: whether the destination exists yet must change no key.
        kept = [name for name in names if name != LEDGER_FOLDER and folder.relative + name != self.excluded]
        for name, key in name_folders(kept).items():
            positions = self.pattern.enter(folder.positions, name)
            if positions:
                yield _Folder(f"{folder.relative}{name}/", f"{folder.key}{key}/", positions)


def _checked(root: Location) -> Location:
    # Elsewhere the first listing tells; there it costs a round trip or more.
    if root.is_local:
        with reading(root.url):
            os.scandir(root.path).close()
    return root


def _place_below(root: Location, destination: Location | None) -> str | None:
    """Return the destination's path below `root`; None if it is elsewhere."""
    if destination is None or type(destination.fs) is not type(root.fs):
        return None
    start, path = _comparable(root), _comparable(destination)
    if path == start:
        raise SourceError(
            f"cannot use {redact(root.url)!r} as collection and destination at once: results would overwrite "
            "originals; allowed is any folder beside or below it"
        )
    below = posixpath.relpath(path, start)
    return None if below.startswith("../") or below == ".." else below


def _comparable(location: Location) -> str:
    if location.is_local:
        return os.path.realpath(location.path)
    return "/" + location.path.strip("/")
