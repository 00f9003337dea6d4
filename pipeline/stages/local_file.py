"""Read an image from the local disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from pipeline import fingerprints
from pipeline.errors import AddressError, LinkError, MissingError
from pipeline.links import follow_within, local_folders
from pipeline.stages.reading import Read, require_size


def read_local(
    path: str, max_bytes: int, known: str = "", within: str | None = None, places: Sequence[str] | None = None
) -> Read:
    """Read a regular file; a pipe or a device is refused, not waited for.

    fsspec's LocalFileSystem is as fast, but it opens pipes and waits.

    Parameters
    ----------
    path : str
    max_bytes : int
    known : str
        A fingerprint: from a file that has it, nothing is read.
    within : str, optional
        A folder that no link on the way may lead out of.
    places : sequence of str, optional
        What a stranger may ask for, whom no link may bring anywhere else.

    Raises
    ------
    OSError
        If it cannot be read.
    AddressError
        If a link leads out of `places`.
    LinkError
        If a link leads out of `within`.
    MissingError
        If it is no regular file.
    TooLargeError
        If it has more than `max_bytes` bytes.
    """
    if within is not None:
        path = _followed(path, within)
    if places is not None:
        path = _followed_for_stranger(path, places)
    with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise MissingError("it is no regular file")
        fingerprint = fingerprints.of_file(status)
        if fingerprint == known:
            return Read(None, fingerprint)
        require_size(status.st_size, max_bytes)
        return Read(file.readall(), fingerprint)


def _followed(path: str, within: str) -> str:
    """Return where a path leads, which has no links in it any more."""
    found = follow_within(path, [within])
    if found is None:
        raise LinkError(f"it is a link that leads out of {within!r}; --follow-links follows it nevertheless")
    return found


def _followed_for_stranger(path: str, places: Sequence[str]) -> str:
    found = follow_within(path, local_folders(places))
    if found is None:
        raise AddressError("it is a link that leads out of what a client of the service may ask for")
    return found


def _open_without_waiting(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
    return os.open(path, flags | os.O_NONBLOCK)
