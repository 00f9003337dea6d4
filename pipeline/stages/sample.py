"""One image as a sample of a WebDataset shard: two members of a tar file, the image and the JSON beside it.

WebDataset takes the members whose names are equal up to the first dot of their last component for one sample, and
passes over names that begin with a folder such as ``__meta__``. A key may have both, so such characters are written
as ``%2E`` and ``%5F`` (and those that mean something in a URL in the same way), as `urllib.parse.unquote` reads them.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping
from typing import Any, Final

# What a tar file ends with; a shard is written without it until it is whole.
END_OF_TAR: Final = bytes(2 * tarfile.BLOCKSIZE)

_ENCODED: Final = re.compile(r"[%#?:]|\.(?=[^/]*$)|^_(?=_)")
_SCHEME: Final = "tar://"


def member_stem(key: str) -> str:
    """Return what the names of a sample's members have in common; another one for each key."""
    return _ENCODED.sub(lambda found: f"%{ord(found[0]):02X}", key)


def make_sample(stem: str, suffix: str, image: bytes, about: Mapping[str, Any], written_at: int) -> bytes:
    """Return the blocks of a tar file that hold one sample.

    Parameters
    ----------
    stem : str
        As `member_stem` returns it.
    suffix : str
        Of the image, such as ``.jpg``.
    image : bytes
    about : mapping
        What the JSON is to say.
    written_at : int
        Seconds since the epoch.
    """
    text = json.dumps(about, ensure_ascii=False).encode()
    return _member(stem + suffix, image, written_at) + _member(f"{stem}.json", text, written_at)


def member_url(member: str, shard: str) -> str:
    """Return where a member of a shard is, as fsspec opens it."""
    return f"{_SCHEME}{member}::{shard}"


def split_member_url(url: str) -> tuple[str, str]:
    """Return the member and the shard that `member_url` was made of; of anything else, two empty texts."""
    member, _, shard = url.removeprefix(_SCHEME).partition("::")
    return (member, shard) if url.startswith(_SCHEME) else ("", "")


def _member(name: str, data: bytes, written_at: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), written_at
    # A key that no UTF-8 can write does not exist; `surrogateescape` is what tarfile reads with.
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return header + data + bytes(-len(data) % tarfile.BLOCKSIZE)
