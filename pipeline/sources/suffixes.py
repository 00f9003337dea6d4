"""What a name's ending tells about a file."""

from __future__ import annotations

import posixpath
from typing import Final

# Of the formats that are decoded. A file with another suffix, or none, is still reached by a glob or a manifest.
_SUFFIXES_BY_FORMAT: Final = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "ICO": (".ico",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG 2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "QOI": (".qoi",),
    "TGA": (".tga",),
    "TIFF": (".tif", ".tiff"),
    "WebP": (".webp",),
}
IMAGE_SUFFIXES: Final = frozenset(suffix for suffixes in _SUFFIXES_BY_FORMAT.values() for suffix in suffixes)
MANIFEST_SUFFIXES: Final = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
COMPRESSION_SUFFIXES: Final = (".gz", ".bz2", ".xz", ".zst")


def suffix_of(name: str) -> str:
    """Return a name's last suffix in small letters, such as ``.jpg``; empty if it has none."""
    return posixpath.splitext(name)[1].lower()


def compression_of(name: str) -> str:
    """Return the suffix that tells how a manifest is compressed, in small letters; empty if it is not."""
    suffix = suffix_of(name)
    return suffix if suffix in COMPRESSION_SUFFIXES else ""


def manifest_suffix_of(name: str) -> str:
    """Return a name's suffix in small letters, one of compression left out: ``list.CSV.gz`` has ``.csv``."""
    return suffix_of(name[: len(name) - len(compression_of(name))])
