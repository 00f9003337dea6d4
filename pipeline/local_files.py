"""Files on a local disk that are whole or absent, whenever the process that writes them is killed."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

# Whether the system knows files without a name; and what a disk answers that does not.
_MAY_BE_UNNAMED: Final = hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")  # noqa: PTH112
_NO_UNNAMED: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.EPERM, errno.EXDEV, errno.ENOSYS})


def replace_file(path: str, data: bytes) -> None:
    """Write a file such that whoever looks sees all of it or what was there before."""
    # Not `tempfile`, whose files only their owner can read; and short, so that any name that fits can be written.
    partial = Path(path).with_name(f".{secrets.token_hex(8)}.part")
    try:
        if not _write_unnamed(path, partial, data):
            with partial.open("xb", buffering=0) as file:
                _write_all(file, data)
            partial.replace(path)
    finally:
        with suppress(OSError):  # After a success it has moved; after a failure there may not even be a folder.
            partial.unlink()


def _write_unnamed(path: str, partial: Path, data: bytes) -> bool:
    """Write a file that gets its name when it is whole: of a process that is killed before, nothing is left.

    Returns False, with nothing done, where there are no such files: outside of Linux, and on some network disks.
    """
    if not _MAY_BE_UNNAMED:
        return False
    try:
        descriptor = os.open(partial.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except OSError as error:
        return _is_supported(error)
    with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123
        _write_all(file, data)
        try:
            _name(file, path)
        except FileExistsError:
            _name(file, partial)
            partial.replace(path)
        except OSError as error:
            return _is_supported(error)
    return True


def _is_supported(error: OSError) -> bool:
    """Return False for what a disk answers that knows no files without a name; raise whatever else it is."""
    if error.errno in _NO_UNNAMED:
        return False
    raise error


def _write_all(file: FileIO, data: bytes) -> None:
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[file.write(remaining) :]


def _name(file: FileIO, path: str | Path) -> None:
    # Only with a folder's descriptor, which an absolute path makes meaningless, does Python follow the link.
    os.link(f"/proc/self/fd/{file.fileno()}", path, src_dir_fd=file.fileno())


def move_file(path: str, target: str) -> None:
    """Give a file another name on its disk.

    Raises
    ------
    FileExistsError
        If there is one of that name; a disk without hard links has it replaced.
    """
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
        Path(path).replace(target)
    else:
        Path(path).unlink()
