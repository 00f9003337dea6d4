"""What an image will take is known before it is decoded, and is not less than what it takes."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from pipeline.domain import FORMATS, Format, ImageLimits, Recipe
from pipeline.errors import StageError, TooHeavyError, TooManyPixelsError, TooSlowError
from pipeline.stages.codec import open_image, output_format
from pipeline.stages.resize import resize_image
from pipeline.stages.weight import icon_pixels, require_light
from tests.stages.pictures import encode

RECIPE = Recipe(max_width=256, max_height=256, enhance=None)
LIMITS = ImageLimits(memory_mib=64)


def smooth(mode: str, side: int) -> Image.Image:
    chance = np.random.default_rng(1)
    image = Image.fromarray(chance.integers(0, 255, (20, 25, 3), dtype=np.uint8)).resize((side, side))
    if mode == "RGBA":
        image.putalpha(image.convert("L"))
        return image
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.quantize(64) if mode == "P" else image.convert(mode)


KINDS = [
    ("RGB", "JPEG", {"progressive": True, "subsampling": 0, "quality": 95}),
    ("CMYK", "JPEG", {"progressive": True, "subsampling": 0}),
    ("RGB", "JPEG", {}),
    ("RGBA", "PNG", {"compress_level": 1}),
    ("LA", "PNG", {"compress_level": 1}),
    ("P", "PNG", {"compress_level": 1}),
    ("I;16", "PNG", {"compress_level": 1}),
    ("RGB", "WEBP", {"method": 0}),
    ("RGBA", "WEBP", {"lossless": True, "method": 0}),
    ("RGB", "AVIF", {"speed": 10, "subsampling": "4:4:4"}),
    ("RGBA", "AVIF", {"speed": 10}),
    ("F", "TIFF", {}),
    ("RGBA", "TIFF", {"compression": "tiff_adobe_deflate"}),
    ("RGB", "JPEG2000", {}),
    ("RGBA", "JPEG2000", {}),
    ("P", "GIF", {}),
    ("RGB", "BMP", {}),
    ("RGB", "TGA", {}),
]

# Tells by how many bytes this process was larger at its peak than before.
MEASURE = """
import io, re, sys
from pathlib import Path
from PIL import Image
from pipeline.domain import ImageLimits, Recipe
from pipeline.stages.codec import encode_image
from pipeline.stages.resize import resize_image
def status(name): return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
box, format = (int(sys.argv[3]), sys.argv[4]) if sys.argv[3:] else (256, "jpeg")
recipe = Recipe(max_width=box, max_height=box, enhance=None, format=format)
small = io.BytesIO()
Image.new("RGB", (300, 300)).save(small, sys.argv[2])
encode_image(resize_image(small.getvalue(), recipe), recipe)
data = Path(sys.argv[1]).read_bytes()
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
encode_image(resize_image(data, recipe, limits=ImageLimits(memory_mib=64)), recipe)
print(status("VmHWM") - before)
"""


def largest_side(mode: str, file_format: str, options: dict[str, object]) -> int:
    """Find the largest square of that kind which is taken to be light enough."""
    side = math.isqrt(LIMITS.max_pixels)
    while True:
        header = encode(smooth(mode, 64), file_format, **options)
        image = open_image(header)
        image._size = (side, side)
        try:
            require_light(image, 256 * 256, "JPEG", LIMITS)
        except TooHeavyError:
            side -= 50
        else:
            return side


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak")
@pytest.mark.parametrize(("mode", "file_format", "options"), KINDS)
def test_an_image_takes_no_more_than_its_header_told(
    tmp_path: Path, mode: str, file_format: str, options: dict[str, object]
) -> None:
    path = tmp_path / "image"
    path.write_bytes(encode(smooth(mode, largest_side(mode, file_format, options)), file_format, **options))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), file_format], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) <= LIMITS.memory_bytes


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak")
@pytest.mark.parametrize("format", FORMATS)
def test_a_result_takes_no_more_than_was_told(tmp_path: Path, format: Format) -> None:
    """Turned, scaled by a little, and encoded: as large as just passes."""
    side = math.isqrt(LIMITS.max_pixels)
    while True:
        box = side - 1
        recipe = Recipe(max_width=box, max_height=box, enhance=None, format=format)
        image, exif = smooth("RGB", 64), Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        opened = open_image(encode(image))
        opened._size = (side, side)
        try:
            require_light(opened, box * box, output_format("PNG", format), LIMITS)
            break
        except TooHeavyError:
            side -= 50
    path = tmp_path / "image"
    path.write_bytes(encode(smooth("RGB", side), compress_level=1, exif=exif))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), "PNG", str(box), recipe.format],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) <= LIMITS.memory_bytes


def png_of(width: int, height: int) -> bytes:
    """Make a PNG whose pixels are missing: its header is all that may be looked at."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunks + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def icon_of(inside: bytes, side: int = 16) -> bytes:
    directory = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", side, side, 0, 0, 1, 32, len(inside), 22)
    return directory + inside


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (png_of(11_000, 10_000), TooManyPixelsError, "110 megapixels, limit 100"),
        (png_of(2**31 - 1, 2**31 - 1), TooManyPixelsError, "megapixels, limit 100"),
        (icon_of(png_of(12_000, 12_000)), TooManyPixelsError, "144 megapixels, limit 100"),
        (icon_of(struct.pack("<Iii", 40, 12_000, -24_000) + bytes(28)), TooManyPixelsError, "288 megapixels"),
        (encode(Image.new("L", (9000, 9000)), "WEBP", method=0), TooHeavyError, "81 megapixels of WEBP in mode RGB"),
        (b"qoif" + struct.pack(">IIBB", 5000, 4000, 3, 0) + bytes(8), TooSlowError, "20 megapixels of QOI take about"),
    ],
)
def test_what_is_too_much_is_refused_by_its_header(data: bytes, error: type[StageError], words: str) -> None:
    with pytest.raises(error, match=words):
        resize_image(data, RECIPE)


def test_the_tile_of_a_tiff_counts_if_it_is_larger_than_the_image() -> None:
    # Width, height, bits, compression (none), photometric (grey), samples, and a tile's width, height, place and size.
    tags = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 8, 325: 16}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    with pytest.raises(TooHeavyError, match="900 megapixels of TIFF"):
        resize_image(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4), RECIPE)


def test_a_result_that_the_recipe_makes_huge_counts_too() -> None:
    huge = Recipe(max_width=16383, max_height=16383, enlarge=True, enhance=None)
    with pytest.raises(TooHeavyError, match=r"to become 268\.403 megapixels of JPEG, take about"):
        resize_image(encode(Image.new("RGB", (10, 10))), huge)


def test_whoever_allows_more_memory_gets_larger_images() -> None:
    image = open_image(png_of(11_000, 10_000), max_pixels=ImageLimits(memory_mib=2048).max_pixels)
    assert image.size == (11_000, 10_000)


@pytest.mark.parametrize("data", [b"", b"\0\0\1\0", b"\0\0\1\0\xff\xff", icon_of(b"")[:20], png_of(3, 3)])
def test_no_icon_has_no_pixels(data: bytes) -> None:
    assert icon_pixels(data) == 0


def test_an_icon_has_those_of_its_largest_image() -> None:
    assert icon_pixels(encode(Image.new("RGBA", (48, 48)), "ICO")) == 48 * 48
