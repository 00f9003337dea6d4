"""Files that are no images, each broken in a way that is met in practice."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple


class BrokenFile(NamedTuple):
    """A suffix, and what makes the bytes of the broken file from those of a whole JPEG."""

    suffix: str
    spoil: Callable[[bytes], bytes]


def truncate(jpeg: bytes) -> bytes:
    """Return the first half: a download that broke off."""
    return jpeg[: len(jpeg) // 2]


def error_page(jpeg: bytes) -> bytes:
    """Return what a web server sends under an image's name when the image is gone."""
    return b"<!doctype html>\n<title>Not found</title>\n<p>The image that you asked for has moved.\n"


def empty(jpeg: bytes) -> bytes:
    """Return nothing."""
    return b""


def pixel_bomb(jpeg: bytes, side_px: int = 30_000) -> bytes:
    """Return a PNG of a hundred bytes whose header claims 900 megapixels."""
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1 + 3 * side_px))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, body) for name, body in chunks)


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


BROKEN_FILES: Final = {
    "truncated": BrokenFile(".jpg", truncate),
    "error-page": BrokenFile(".jpg", error_page),
    "empty": BrokenFile(".jpg", empty),
    "pixel-bomb": BrokenFile(".png", pixel_bomb),
}

# What the server of the demo answers under ``/answers/``, by kind.
ANSWERS: Final = {"missing": "404", "forbidden": "403", "server-error": "500", "silent": "silence"}
