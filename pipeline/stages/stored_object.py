"""Read an image from an object store, or from any other file system of fsspec."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem

from pipeline import fingerprints
from pipeline.stages.reading import Read, require_size
from pipeline.storage import answer_behind, open_folder


async def read_object(
    url: str,
    storage_options: Mapping[str, Any],
    max_bytes: int,
    *,
    known: str = "",
    wants_fingerprint: bool = False,
) -> Read:
    """Read an object.

    Parameters
    ----------
    url : str
    storage_options : mapping
        As in fsspec.
    max_bytes : int
    known : str
        A fingerprint: of an object that has it, nothing is read.
    wants_fingerprint : bool
        Whether the object is asked for its fingerprint, which is a request of its own.

    Raises
    ------
    TooLargeError
        If it has more than `max_bytes` bytes.
    Exception
        Whatever else the file system raises.
    """
    # Asked once, since the caller asks again itself: two backoffs, one in the other, would take the product of both.
    fs, path = open_folder(url, storage_options, attempts=1)
    fingerprint = ""
    if wants_fingerprint:
        fingerprint = fingerprints.of_listed(await _call(fs, "info", path))
        if fingerprint and fingerprint == known:
            return Read(None, fingerprint)
    try:
        # One byte more than allowed tells too large, without a request for the size.
        data: bytes = await _call(fs, "cat_file", path, start=0, end=max_bytes + 1)
    except OSError as error:
        # S3 finds no such range in an empty object.
        answer = answer_behind(error)
        if answer is None or answer.status != 416:
            raise
        data = b""
    require_size(len(data), max_bytes)
    return Read(data, fingerprint)


async def _call(fs: AbstractFileSystem, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of a file system while other coroutines run."""
    if isinstance(fs, AsyncFileSystem):
        # It lives on the loop of fsspec's own thread, which may or may not be ours.
        calling = asyncio.run_coroutine_threadsafe(getattr(fs, f"_{method}")(*args, **kwargs), fs.loop)
        return await asyncio.wrap_future(calling)
    return await asyncio.to_thread(getattr(fs, method), *args, **kwargs)
