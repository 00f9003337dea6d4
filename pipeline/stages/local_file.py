"""Read an image from the local disk."""

from __future__ import annotations

import os
import stat

from pipeline import fingerprints
from pipeline.errors import MissingError
from pipeline.stages.reading import Read, require_size


def read_local(path: str, max_bytes: int, known: str = "") -> Read:
    """Read a regular file; a pipe or a device is refused, not waited for.

    fsspec's LocalFileSystem is as fast, but it opens pipes and waits.

    Parameters
    ----------
    path : str
    max_bytes : int
    known : str
        A fingerprint: from a file that has it, nothing is read.

    Raises
    ------
    OSError
        If it cannot be read.
    MissingError
        If it is no regular file.
    TooLargeError
        If it has more than `max_bytes` bytes.
    """
    with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise MissingError("it is no regular file")
        fingerprint = fingerprints.of_file(status)
        if fingerprint == known:
            return Read(None, fingerprint)
        require_size(status.st_size, max_bytes)
        return Read(file.readall(), fingerprint)


def _open_without_waiting(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
    return os.open(path, flags | os.O_NONBLOCK)
