"""Image files in, image files out: the one place where Pillow's formats, options and errors are known."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.domain import Format, ImageLimits, Recipe
from pipeline.errors import (
    DecodeError,
    NotAnImageError,
    StoreError,
    TooHeavyError,
    TooManyPixelsError,
    TruncatedError,
)
from pipeline.stages.picture import Picture
from pipeline.stages.weight import icon_pixels

_USUAL: Final = ImageLimits()

# What collections of photographs and graphics hold. Formats that start another program (EPS), or that hardly
# anybody uses, are left out: each is a parser that meets untrusted bytes. TGA is last: it has no signature.
READABLE: Final = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "JPEG2000", "ICO", "PPM", "QOI", "TGA")

SUFFIX_BY_FORMAT: Final = MappingProxyType(
    {
        "JPEG": ".jpg",
        "PNG": ".png",
        "WEBP": ".webp",
        "AVIF": ".avif",
        "GIF": ".gif",
        "TIFF": ".tif",
        "BMP": ".bmp",
        "JPEG2000": ".jp2",
    }
)
_WITHOUT_ALPHA: Final = frozenset({"JPEG", "BMP"})
_WITH_EXIF: Final = frozenset({"JPEG", "PNG", "WEBP", "AVIF", "TIFF"})

# Whatever broken files have made Pillow raise.
CODEC_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

# Pillow warns of odd metadata and of sizes that are checked here anyway: nothing that anybody could act on.
# A filter for the whole process, since `catch_warnings` changes that same filter and is not safe among threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image file: its bytes and the suffix that its name should have, such as ``.jpg``."""

    data: bytes
    suffix: str


def open_image(data: bytes, *, max_pixels: int = _USUAL.max_pixels) -> Image.Image:
    """Read an image's header; its pixels are not decoded yet.

    Parameters
    ----------
    data : bytes
        A whole image file, of one of the `READABLE` formats.
    max_pixels : int
        The most pixels (width times height) that the image may have.

    Returns
    -------
    PIL.Image.Image
        At its first frame.

    Raises
    ------
    NotAnImageError
        If the bytes are of no readable format.
    TruncatedError
        If they begin like one, and then end or make no sense.
    TooManyPixelsError
        If the header announces more than `max_pixels`.
    DecodeError
        If it is a variant of the format that cannot be read.
    """
    if (inside := icon_pixels(data)) > max_pixels:
        raise _too_many_pixels(inside, max_pixels)
    try:
        with translated_errors(DecodeError, max_pixels):
            image = Image.open(io.BytesIO(data), formats=READABLE)
    except UnidentifiedImageError as error:
        if _has_known_signature(data):
            raise TruncatedError("cannot decode: its header is damaged or ends too early") from error
        raise NotAnImageError(f"cannot decode: its {len(data)} bytes are of no known image format") from error
    if image.width * image.height > max_pixels:
        raise _too_many_pixels(image.width * image.height, max_pixels)
    return image


def let_pillow_open(max_pixels: int) -> None:
    """Have Pillow open images of so many pixels, in this process: it refuses what is above twice a bound of its own."""
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)


@contextmanager
def translated_errors(kind: type[DecodeError], max_pixels: int) -> Iterator[None]:
    """Raise whatever Pillow raises on a broken file as an error of `kind`."""
    try:
        yield
    except UnidentifiedImageError:
        raise
    except Image.DecompressionBombError as error:
        # A container (ICO) may hold more than its header says. The message begins with the number of pixels.
        pixels = re.search(r"\d+", str(error))
        raise _too_many_pixels(int(pixels[0]) if pixels else 0, max_pixels) from error
    except NotImplementedError as error:
        raise DecodeError(f"cannot decode: {error}") from error
    except MemoryError as error:
        raise TooHeavyError("cannot decode: there is not enough memory for it") from error
    except CODEC_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise (TruncatedError if "truncated" in reason.lower() else kind)(f"cannot decode: {reason}") from error


def copyright_block(image: Image.Image) -> bytes:
    """Make an EXIF block of an image's Artist and Copyright; empty if it has neither or its EXIF is broken."""
    kept = Image.Exif()
    try:
        exif = image.getexif()
        for tag in (ExifTags.Base.Artist, ExifTags.Base.Copyright):
            # Pillow reads these as Latin-1; as bytes, names in UTF-8 survive.
            if text := str(exif.get(tag, "")).strip():
                kept[tag] = text.encode("latin-1", "replace")
        return kept.tobytes() if kept else b""
    except CODEC_ERRORS:
        return b""


def output_format(source_format: str, wanted: Format) -> str:
    """Choose Pillow's name of the format to write; ``same`` is PNG where the source's cannot be written."""
    if wanted != "same":
        return wanted.upper()
    if source_format == "MPO":
        return "JPEG"  # An MPO is a JPEG with further pictures behind it.
    return source_format if source_format in SUFFIX_BY_FORMAT else "PNG"


def encode_image(picture: Picture, recipe: Recipe) -> Encoded:
    """Write a picture as an image file: the same picture and Recipe give the same bytes.

    No metadata is written, and no profile: the pixels are sRGB, which is what a file without one is taken for.
    TIFF (LZW), PNG and JPEG 2000 are written without loss; BMP without compression; GIF with 256 colours.

    Raises
    ------
    StoreError
        If the encoder fails.
    """
    file_format = output_format(picture.source_format, recipe.format)
    image = picture.image
    if file_format in _WITHOUT_ALPHA and image.has_transparency_data:
        image = flatten_alpha(image, recipe.background)
    options = _encoder_options(file_format, recipe.quality) | _copyright_options(file_format, picture.copyright)
    encoded = io.BytesIO()
    try:
        image.save(encoded, file_format, **options)
    except CODEC_ERRORS as error:
        raise StoreError(f"cannot encode {image.width}x{image.height} pixels as {file_format}: {error}") from error
    return Encoded(encoded.getvalue(), SUFFIX_BY_FORMAT[file_format])


def flatten_alpha(image: Image.Image, background: str) -> Image.Image:
    """Lay an LA or RGBA image on a background, ``#rrggbb``; the result has mode RGB."""
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return canvas


def _encoder_options(file_format: str, quality: int) -> dict[str, Any]:
    match file_format:
        case "JPEG" | "WEBP":
            return {"quality": quality}
        case "AVIF":
            # Speed 8 takes 0.4 of the time of Pillow's 6 for 3% more bytes at the same quality, within 0.3 dB.
            # One thread, since images are worked on side by side; and the bytes may depend on the number.
            return {"quality": quality, "speed": 8, "max_threads": 1}
        case "TIFF":
            return {"compression": "tiff_lzw"}
    return {}


def _copyright_options(file_format: str, block: bytes) -> dict[str, Any]:
    if not block or file_format not in _WITH_EXIF:
        return {}
    if file_format != "TIFF":
        return {"exif": block}
    # Of a block, Pillow's TIFF writer would write again what it reads, as ASCII.
    exif = Image.Exif()
    exif.load(block)
    return {"tiffinfo": {tag: text.encode("latin-1") for tag, text in exif.items()}}


def _has_known_signature(data: bytes) -> bool:
    accepts = (Image.OPEN[name][1] for name in READABLE if name in Image.OPEN and name != "TGA")
    return any(accept is not None and accept(data[:16]) is True for accept in accepts)


def _too_many_pixels(pixels: int, max_pixels: int) -> TooManyPixelsError:
    megapixels, limit = (f"{round(count / 1e6, 3):.12g}" for count in (pixels, max_pixels))
    return TooManyPixelsError(f"cannot decode: {megapixels} megapixels, limit {limit}")
