"""Small pictures of results, wherever these are."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from typing import Any, BinaryIO, Final

import fsspec
from PIL import Image, ImageOps

from pipeline.errors import DestinationError
from pipeline.stages.sample import split_member_url
from pipeline.storage import storage_errors
from pipeline.urls import redact, scheme_of

# What is behind a picture that is not opaque.
BACKDROP: Final = "#ffffff"

_QUALITY: Final = 75
_THREADS: Final = 4


def make_thumbnail(source: str | PathLike[str] | BinaryIO, side_px: int) -> Image.Image | None:
    """Return an image upright, in RGB and not larger than a square; None if it cannot be read."""
    try:
        with Image.open(source) as image:
            # A JPEG is decoded at a half, a quarter or an eighth of its size, which is all that is needed.
            image.draft(None, (2 * side_px, 2 * side_px))
            upright = ImageOps.exif_transpose(image)
            # Palettes and 16 bits cannot be scaled well: RGBA first, then onto the backdrop.
            picture = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
            picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    # What Pillow raises for bytes that are no image, or are broken in one of many ways.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if picture.mode == "RGBA":
        backdrop = Image.new("RGBA", picture.size, BACKDROP)
        return Image.alpha_composite(backdrop, picture).convert("RGB")
    return picture


def make_pictures(
    places: Sequence[str], side_px: int, storage_options: Mapping[str, Any] | None = None
) -> list[tuple[str, str]]:
    """Return stored images and their thumbnails as ``data:`` URLs; what cannot be read is left out.

    Parameters
    ----------
    places : sequence of str
        Paths, or URLs that fsspec opens. Images in shards of an object store are left out: to find one, all that is in
        front of it would be read.
    side_px : int
        The most rows and columns of each.
    storage_options : mapping, optional
        As in fsspec.
    """

    def read(place: str) -> str:
        _, shard = split_member_url(place)
        if shard and scheme_of(shard) != "file":
            return ""
        try:
            with (
                storage_errors(DestinationError, f"cannot read {redact(place)!r}"),
                fsspec.open(place, "rb", **({} if shard else storage_options or {})) as file,
            ):
                thumbnail = make_thumbnail(io.BytesIO(file.read()), side_px)
        except DestinationError:
            return ""
        return data_url(thumbnail) if thumbnail else ""

    with ThreadPoolExecutor(_THREADS) as threads:
        return [(place, url) for place, url in zip(places, threads.map(read, places), strict=True) if url]


def data_url(image: Image.Image, quality: int = _QUALITY) -> str:
    """Write an image as a ``data:`` URL that holds a JPEG.

    Parameters
    ----------
    image : PIL.Image.Image
        RGB.
    quality : int
        1 to 100.
    """
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
