"""Image files with known colours, and what the tests of the stages share."""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

# A folder of broken and odd files beside the checkout; without it, the tests that read it are skipped.
HOSTILE = Path(__file__).parents[3] / "shared" / "hostile"

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def quadrants(width: int = 64, height: int = 32) -> Image.Image:
    """Red and green above blue and white: no two of the eight orientations look the same."""
    image = Image.new("RGB", (2, 2))
    image.putdata([RED, GREEN, BLUE, WHITE])
    return image.resize((width, height), Image.Resampling.NEAREST)


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Read the colours inside the four corners: above left and right, below left and right."""
    rgb, (width, height) = image.convert("RGB"), image.size
    xs, ys = (width // 5, width - 1 - width // 5), (height // 5, height - 1 - height // 5)
    return [rgb.getpixel((x, y)) for y in ys for x in xs]


def assert_close(actual, expected, tolerance: int = 2) -> None:
    assert np.abs(np.subtract(actual, expected, dtype=int)).max() <= tolerance, (actual, expected)


def matrix_profile(colorants: list[tuple[float, float, float]]) -> bytes:
    """Make an ICC profile with sRGB's curves whose red, green and blue are these colours (XYZ under D50)."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for entry in range(struct.unpack_from(">I", profile, 128)[0]):
        tag, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * entry)
        if tag in (b"rXYZ", b"gXYZ", b"bXYZ"):
            colorant = colorants["rgb".index(chr(tag[0]))]
            struct.pack_into(">3i", profile, offset + 8, *(round(value * 65536) for value in colorant))
    return bytes(profile)


SRGB_RED, SRGB_GREEN, SRGB_BLUE = (0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)
# Under it, "red" means blue and the other way round: whoever ignores the profile is found out.
SWAPPED = matrix_profile([SRGB_BLUE, SRGB_GREEN, SRGB_RED])
DISPLAY_P3 = matrix_profile([(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)])
