"""Where a collection is: a file system, a path there, and the same place as people write it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Self

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import SourceError
from pipeline.storage import open_folder, storage_errors
from pipeline.urls import redact


@dataclass(frozen=True, slots=True)
class Location:
    """A file or folder, there or not.

    Attributes
    ----------
    fs : fsspec.AbstractFileSystem
    path : str
        As `fs` wants it.
    url : str
        The absolute path if it is local; else the URL as it was given, whose start may say more than `path` does.
    """

    fs: AbstractFileSystem
    path: str
    url: str

    @classmethod
    def of(cls, url: str, storage_options: Mapping[str, Any] | None = None) -> Self:
        """Find the file system of a path or URL.

        Raises
        ------
        SourceError
            If its protocol is unknown, not installed or refuses the options.
        """
        with reading(url):
            fs, path = open_folder(url, storage_options)
        return cls(fs, path, path if isinstance(fs, LocalFileSystem) else url)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's file system."""
        return isinstance(self.fs, LocalFileSystem)

    def find_kind(self) -> Literal["file", "folder", "other", "missing"]:
        """Ask the file system what is there.

        Raises
        ------
        SourceError
            If it does not answer, or not to us.
        """
        with reading(self.url):
            try:
                kind = self.fs.info(self.path)["type"]
            except (FileNotFoundError, NotADirectoryError):
                return "missing"
        if kind == "directory":
            return "folder"
        return "file" if kind == "file" else "other"

    def below(self, relative: str) -> Self:
        """Return what lies at a path below this folder; the folder itself for the empty path."""
        if not relative:
            return self
        return type(self)(self.fs, _with_slash(self.path) + relative, _with_slash(self.url) + relative)

    def list_folder(self) -> tuple[list[str], list[str]]:
        """Return the names of the files and of the folders directly in this folder, each sorted.

        Links to folders are left out, as are devices and pipes; a link to nothing is a file, one that cannot be read.

        Raises
        ------
        OSError
            Or whatever else the file system raises.
        """
        files, folders = _list_local(self.path) if self.is_local else _list_remote(self.fs, self.path)
        return sorted(files), sorted(folders)


def reading(url: str) -> AbstractContextManager[None]:
    """Make a SourceError of whatever is raised while `url` is read.

    A ValueError says what is wrong with the contents.
    """
    return storage_errors(SourceError, f"cannot read {redact(url)!r}")


def encodable(url: str) -> str:
    """Return `url` such that it can be written as UTF-8, in JSON, Redis and Parquet.

    A file's name on Linux need not be UTF-8. What is not becomes U+FFFD: fetching then fails and says which file it is.
    """
    return url.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _list_local(path: str) -> tuple[list[str], list[str]]:
    # Ten times as fast as fsspec's, which asks for the size of every file, and it tells links apart.
    files, folders = [], []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):  # noqa: PTH110
                files.append(entry.name)
    return files, folders


def _list_remote(fs: AbstractFileSystem, path: str) -> tuple[list[str], list[str]]:
    names: dict[str, list[str]] = {"file": [], "directory": []}
    for entry in fs.ls(path, detail=True):
        below = entry["name"].rstrip("/")
        # Object stores also list the empty object that stands for the folder itself.
        if below.strip("/") != path.strip("/") and entry["type"] in names:
            names[entry["type"]].append(below.rpartition("/")[2])
    return names["file"], names["directory"]


def _with_slash(path: str) -> str:
    return path if not path or path.endswith("/") else path + "/"
