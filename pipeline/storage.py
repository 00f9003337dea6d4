"""Files of a destination, whole or absent: on the local disk by rename, in an object store by one PUT."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


def absolute(place: str | os.PathLike[str]) -> str:
    """Return a local path made absolute, so that it means the same in every process; a URL as it is."""
    place = os.fspath(place)
    # A glob is no path, so pathlib has no say here.
    return place if "://" in place else os.path.abspath(os.path.expanduser(place))  # noqa: PTH100, PTH111


def open_folder(url: str, storage_options: Mapping[str, Any] | None = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system that `url` is on, and its path there (absolute, ``~`` expanded, for a local folder).

    Listings are not cached: what another process has written is seen.
    """
    if "://" not in url:
        return LocalFileSystem(), absolute(url)
    options = {"use_listings_cache": False, **(storage_options or {})}
    fs, path = fsspec.core.url_to_fs(url, **options)
    return fs, path


def write_whole(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Write a file such that whoever looks sees all of it or none of it; its folder is made on demand.

    Raises
    ------
    OSError
        If it cannot be written; nothing is left behind.
    """
    if isinstance(fs, LocalFileSystem):
        _replace(Path(path), data)
    else:
        fs.pipe_file(path, data)


def _replace(path: Path, data: bytes) -> None:
    _make_folder(path.parent)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    except FileNotFoundError:
        # Somebody removed the folder since it was made.
        _make_folder.cache_clear()
        _make_folder(path.parent)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            # mkstemp makes files for the owner only; what users get follows their umask.
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108
        raise


@functools.lru_cache(maxsize=4096)
def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


@functools.cache
def _umask() -> int:
    # The only way to read it is to set it.
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
