"""How much memory an image will take, as its header tells before anything is decoded.

The figures are peaks in bytes a pixel beyond what the process had, measured with 20 megapixels of each kind.
"""

from __future__ import annotations

import struct
from types import MappingProxyType
from typing import Final

from PIL import Image

from pipeline.domain import ImageLimits
from pipeline.errors import TooHeavyError, TooSlowError

# The decoded samples, and what they are converted to on their way to 8-bit L, LA, RGB, RGBA or CMYK.
_SAMPLE_BYTES: Final = MappingProxyType(
    {"1": 3, "L": 4, "P": 7, "RGB": 6, "RGBX": 6, "CMYK": 6, "YCbCr": 9, "LAB": 9, "RGBA": 10, "LA": 14, "PA": 14}
)
# Modes of 16 and 32 bits a sample go through NumPy.
_DEEP_SAMPLE_BYTES: Final = 25
# What decoders keep beside the result: coefficients, planes, the canvas of an animation.
_DECODER_BYTES: Final = MappingProxyType({"WEBP": 12, "AVIF": 9, "JPEG2000": 17})
_PROGRESSIVE_BYTES: Final = 7
# The result while the image is still there; then, when that is gone, with what its encoder makes of it.
_RESULT_BYTES: Final = 7
_ENCODED_BYTES: Final = MappingProxyType({"WEBP": 11, "AVIF": 29, "JPEG2000": 29})
_USUAL_ENCODED_BYTES: Final = 10

# Pillow's decoder of QOI is written in Python: it takes a second for each megapixel.
_SECONDS_PER_MEGAPIXEL: Final = MappingProxyType({"QOI": 1.5})

_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"


def require_light(image: Image.Image, result_pixels: int, result_format: str, limits: ImageLimits) -> None:
    """Refuse an image that will take more than it may.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened, not decoded.
    result_pixels : int
        What the Recipe makes of it.
    result_format : str
        Pillow's name of the format that this is written in.
    limits : ImageLimits

    Raises
    ------
    TooHeavyError, TooSlowError
        If it will.
    """
    pixels = max(image.width * image.height, _tile_pixels(image))
    weight = max(
        pixels * _bytes_per_pixel(image) + result_pixels * _RESULT_BYTES,
        result_pixels * _ENCODED_BYTES.get(result_format, _USUAL_ENCODED_BYTES),
    )
    if weight > limits.memory_bytes:
        raise TooHeavyError(
            f"cannot decode: {_megapixels(pixels)} of {image.format} in mode {image.mode}, to become "
            f"{_megapixels(result_pixels)} of {result_format}, take about {weight / 2**20:.0f} MiB; "
            f"limit {limits.memory_mib} MiB"
        )
    seconds = pixels / 1e6 * _SECONDS_PER_MEGAPIXEL.get(image.format or "", 0.0)
    if seconds > limits.timeout_s:
        raise TooSlowError(
            f"cannot decode: {_megapixels(pixels)} of {image.format} take about {seconds:.0f} seconds; "
            f"limit {limits.timeout_s:g}"
        )


def icon_pixels(data: bytes) -> int:
    """Return the pixels of the largest image in an icon file: Pillow decodes it when it opens the file.

    The directory has one byte for a side, what it leads to has four; 0 for what is no icon file.
    """
    if data[:4] != b"\0\0\1\0":
        return 0
    largest = 0
    for entry in range(min(struct.unpack_from("<H", data.ljust(6, b"\0"), 4)[0], len(data) // 16)):
        start = int.from_bytes(data[6 + 16 * entry + 12 : 6 + 16 * entry + 16], "little")
        header = data[start : start + 24].ljust(24, b"\0")
        if header.startswith(_PNG_MAGIC):
            width, height = struct.unpack_from(">II", header, 16)
        else:
            width, height = (abs(side) for side in struct.unpack_from("<ii", header, 4))
        largest = max(largest, width * height)
    return largest


def _bytes_per_pixel(image: Image.Image) -> int:
    decoder = _DECODER_BYTES.get(image.format or "", 0)
    if image.info.get("progressive"):
        decoder = _PROGRESSIVE_BYTES
    return decoder + _SAMPLE_BYTES.get(image.mode, _DEEP_SAMPLE_BYTES)


def _tile_pixels(image: Image.Image) -> int:
    """Return the pixels of a TIFF's tile, which may be larger than the image."""
    tags = getattr(image, "tag_v2", None)
    if not tags:
        return 0
    sides = [tags.get(number, 0) for number in (322, 323)]
    return int(sides[0] * sides[1]) if all(isinstance(side, int) for side in sides) else 0


def _megapixels(pixels: int) -> str:
    return f"{round(pixels / 1e6, 3):.12g} megapixels"
