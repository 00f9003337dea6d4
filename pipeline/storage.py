"""Files of a destination, whole or absent: on the local disk by rename, in an object store by one PUT."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import DestinationError, PipelineError
from pipeline.urls import OBJECT_STORES, redact_within


def absolute(place: str | os.PathLike[str]) -> str:
    """Return a local path made absolute, so that it means the same in every process; a URL, or nothing, as it is."""
    place = os.fspath(place)
    # A glob is no path, so pathlib has no say here.
    return place if "://" in place or not place else os.path.abspath(os.path.expanduser(place))  # noqa: PTH100, PTH111


def open_folder(url: str, storage_options: Mapping[str, Any] | None = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system that `url` is on, and its path there (absolute, ``~`` expanded, for a local folder).

    Listings are not cached: what another process has written is seen. As everywhere in fsspec, nothing in a ``file://``
    URL is unquoted: ``%20`` in it is three characters of a name.
    """
    if "://" not in url:
        return LocalFileSystem(), absolute(url)
    options = {"use_listings_cache": False, **(storage_options or {})}
    fs, path = fsspec.core.url_to_fs(url, **options)
    return fs, path


def require_place_of_report(path: Path) -> None:
    """Raise DestinationError unless a report can be written there: better now than after a night's run."""
    if path.is_dir() or not path.parent.is_dir():
        raise DestinationError(f"cannot write the report {str(path)!r}: it must be a file in a folder that exists")


def write_whole(fs: fsspec.AbstractFileSystem, path: str, data: bytes, *, makes_folder: bool = True) -> None:
    """Write a file such that whoever looks sees all of it or none of it; its folder is made on demand.

    What was there before is replaced. If it fails, nothing is left behind; what is raised is the file system's own
    error, which `storage_errors` translates.
    """
    write = _replace if isinstance(fs, LocalFileSystem) else fs.pipe_file
    try:
        write(path, data)
    except FileNotFoundError:
        # What an object store misses is the bucket: a misspelt name must not make a new one.
        if not makes_folder or _is_object_store(fs):
            raise
        fs.makedirs(fs._parent(path), exist_ok=True)
        write(path, data)


def make_folder(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Make a folder, where there are folders: in an object store, a misspelt name must not make a new bucket."""
    if not _is_object_store(fs):
        fs.makedirs(path, exist_ok=True)


def move_whole(fs: fsspec.AbstractFileSystem, path: str, target: str) -> None:
    """Give a file another name in the same store, such that whoever looks sees all of it there or none of it.

    An object store copies it by itself; what is there appears when it is whole.
    """
    if isinstance(fs, LocalFileSystem):
        Path(path).replace(target)
    else:
        # Not `mv`, which takes brackets in a name for a pattern.
        fs.cp_file(path, target)
        fs.rm_file(path)


@contextmanager
def storage_errors(kind: type[PipelineError], what: str) -> Iterator[None]:
    """Make an error of one kind of whatever is raised while a file system is used; ours pass as they are.

    Every file system of fsspec has errors of its own, and those of the packages that it is made of (botocore, aiohttp,
    google-auth …): no list of them would be whole.

    Parameters
    ----------
    kind : type of PipelineError
    what : str
        What fails, on what: ``cannot store 's3://bucket/cat.jpg'``. To be free of secrets.

    Raises
    ------
    PipelineError
        Of that kind, in one line: `what`, a colon and the reason.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        raise kind(f"{what}: {_reason(error)}") from error


def _replace(path: str, data: bytes) -> None:
    # Not `tempfile`, whose files only their owner can read; and short, so that any name that fits can be written.
    partial = Path(path).with_name(f".{secrets.token_hex(8)}.part")
    try:
        with partial.open("xb", buffering=0) as file:
            remaining = memoryview(data)
            while remaining:
                remaining = remaining[file.write(remaining) :]
        partial.replace(path)
    finally:
        with suppress(OSError):  # After a success it has moved; after a failure there may not even be a folder.
            partial.unlink()


def _is_object_store(fs: fsspec.AbstractFileSystem) -> bool:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return not OBJECT_STORES.isdisjoint(protocols)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    if isinstance(error, PermissionError):
        return "permission denied"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return redact_within(" ".join(str(text).split()))
