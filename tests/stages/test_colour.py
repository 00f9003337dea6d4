"""Golden images by construction: whatever the mode and the profile of the file, its known colours come out."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.domain import Recipe
from pipeline.stages.resize import resize_image
from tests.stages.pictures import BLUE, DISPLAY_P3, GREEN, RED, SWAPPED, WHITE, assert_close, corners, encode, quadrants

# To the same size, so nothing is resampled, and to half of it.
RECIPES = [Recipe(), Recipe(max_width=32)]


@pytest.fixture(params=RECIPES, ids=["same size", "half size"])
def recipe(request):
    return request.param


def colours_of(data: bytes, recipe: Recipe) -> list[tuple[int, ...]]:
    return corners(resize_image(data, recipe).image)


@pytest.mark.parametrize("mode", ["RGB", "YCbCr", "LAB", "CMYK", "P"])
def test_colours_survive_every_colour_mode_of_tiff(mode, recipe):
    data = encode(quadrants().convert(mode), "TIFF")
    # 8-bit LAB is coarse at the edge of the gamut.
    assert_close(colours_of(data, recipe), [RED, GREEN, BLUE, WHITE], 24 if mode == "LAB" else 3)


def test_cmyk_jpeg_is_not_inverted(recipe):
    data = encode(quadrants().convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert_close(colours_of(data, recipe), [RED, GREEN, BLUE, WHITE], 4)


def test_profile_is_applied(recipe):
    data = encode(quadrants(), icc_profile=SWAPPED)
    assert_close(colours_of(data, recipe), [BLUE, GREEN, RED, WHITE])


def test_wide_gamut_profile_is_applied(recipe):
    """Display P3 (200, 100, 50) is sRGB (215, 93, 31): 214.9, 92.6, 30.9 by the two matrices and sRGB's curve."""
    data = encode(Image.new("RGB", (64, 32), (200, 100, 50)), icc_profile=DISPLAY_P3)
    assert_close(colours_of(data, recipe), [(215, 93, 31)] * 4, 1)


def test_profile_is_applied_to_palettes_and_beneath_alpha(recipe):
    image = quadrants()
    image.putalpha(128)
    assert_close(colours_of(encode(image, icc_profile=SWAPPED), recipe), [BLUE, GREEN, RED, WHITE])
    assert resize_image(encode(image, icc_profile=SWAPPED), recipe).image.getchannel("A").getextrema() == (128, 128)
    palette = encode(quadrants().convert("P"), icc_profile=SWAPPED)
    assert_close(colours_of(palette, recipe), [BLUE, GREEN, RED, WHITE])


def test_profile_and_orientation_work_together(recipe):
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encode(quadrants(), icc_profile=SWAPPED, exif=exif)
    assert_close(colours_of(data, recipe), [WHITE, RED, GREEN, BLUE])


@pytest.mark.parametrize("profile", [b"junk", b"\0" * 200, SWAPPED[:300]])
def test_unusable_profile_is_ignored(profile, recipe):
    assert_close(colours_of(encode(quadrants(), icc_profile=profile), recipe), [RED, GREEN, BLUE, WHITE])


def test_profile_of_another_mode_is_ignored(recipe):
    data = encode(Image.new("CMYK", (64, 32), (0, 0, 0, 255)), "JPEG", icc_profile=SWAPPED)
    assert_close(colours_of(data, recipe), [(0, 0, 0)] * 4)


def test_srgb_profile_changes_nothing():
    noise = Image.effect_noise((40, 40), 90).convert("RGB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert resize_image(encode(noise, icc_profile=srgb), Recipe()).image.tobytes() == noise.tobytes()


def test_alpha_is_kept_and_hidden_colours_do_not_bleed():
    image = Image.new("RGBA", (64, 32), (255, 0, 0, 255))
    image.paste((0, 255, 0, 0), (32, 0, 64, 32))
    result = np.asarray(resize_image(encode(image), Recipe(max_width=31)).image)
    visible = result[result[..., 3] > 8]
    assert result[..., 3].min() == 0
    assert_close(visible[:, :3], np.broadcast_to(RED, (len(visible), 3)), 3)


def test_grey_with_alpha_stays_so(recipe):
    image = resize_image(encode(Image.new("LA", (64, 32), (200, 60))), recipe).image
    assert image.mode == "LA"
    assert image.getpixel((3, 3)) == (200, 60)


@pytest.mark.parametrize("transparency", [0, bytes([0, 255, 255, 255])])
def test_palette_with_transparency_gets_alpha(transparency, recipe):
    image = Image.new("P", (64, 32))
    image.putpalette([*RED, *GREEN, *BLUE, *WHITE])
    image.paste(1, (32, 0, 64, 32))
    result = resize_image(encode(image, transparency=transparency), recipe).image
    assert result.mode == "RGBA"
    assert result.getpixel((2, 2))[3] == 0
    assert result.getpixel((result.width - 3, 2)) == (*GREEN, 255)


@pytest.mark.parametrize(("mode", "shown", "hidden"), [("L", 40, 200), ("RGB", RED, BLUE), ("1", 0, 255)])
def test_transparent_colour_becomes_alpha(mode, shown, hidden, recipe):
    image = Image.new(mode, (64, 32), shown)
    image.paste(hidden, (32, 0, 64, 32))
    result = resize_image(encode(image, transparency=hidden), recipe).image
    alpha = result.getchannel("A")
    assert (alpha.getpixel((2, 2)), alpha.getpixel((alpha.width - 3, 2))) == (255, 0)


def test_transparent_level_of_a_4_bit_png_is_found():
    image = Image.new("L", (8, 8), 17)
    image.paste(255, (4, 0, 8, 8))
    alpha = resize_image(_grey_png_of_4_bits(image, transparent=15), Recipe()).image.getchannel("A")
    assert (alpha.getpixel((0, 0)), alpha.getpixel((7, 0))) == (255, 0)


def test_one_bit_image_becomes_grey(recipe):
    image = Image.new("1", (64, 32), 1)
    result = resize_image(encode(image), recipe).image
    assert (result.mode, result.getpixel((3, 3))) == ("L", 255)


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (257, 1), (32896, 128), (65535, 255), (128, 0), (129, 1)])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_divided_by_257(level, expected, file_format, recipe):
    data = encode(Image.new("I;16", (64, 32), level), file_format)
    result = resize_image(data, recipe).image
    assert (result.mode, result.getpixel((3, 3))) == ("L", expected)


def test_big_endian_16_bit_tiff_is_read_alike():
    data = encode(Image.new("I;16B", (64, 32), 0x8040), "TIFF")
    assert resize_image(data, Recipe()).image.getpixel((0, 0)) == 128


def test_transparent_level_of_a_16_bit_png_becomes_alpha():
    image = Image.new("I;16", (4, 4), 1000)
    image.putpixel((1, 1), 1001)
    result = resize_image(encode(image, transparency=1001), Recipe()).image
    assert (result.getpixel((0, 0)), result.getpixel((1, 1))) == ((4, 255), (4, 0))


@pytest.mark.parametrize(
    ("mode", "levels", "expected"),
    [
        ("I", [0, 65535, 70000, -5], [0, 255, 255, 0]),
        ("F", [0.0, 0.5, 1.0, -1.0], [0, 128, 255, 0]),
        ("F", [0.0, 128.0, 255.0, 300.0], [0, 128, 255, 255]),
        ("F", [float("nan"), 1.0, 0.0, 0.25], [0, 255, 0, 64]),
    ],
)
def test_integers_and_floats_are_clipped_to_the_stated_range(mode, levels, expected):
    image = Image.new(mode, (2, 2))
    image.putdata(levels)
    result = resize_image(encode(image, "TIFF"), Recipe()).image
    assert list(result.tobytes()) == expected


def test_one_pixel_of_every_mode_is_decoded():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        assert resize_image(encode(Image.new(mode, (1, 1))), Recipe()).image.size == (1, 1)


def _grey_png_of_4_bits(image: Image.Image, transparent: int) -> bytes:
    """Pillow's own writer knows no such file, so it is put together here."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    levels = np.asarray(image) >> 4
    rows = b"".join(b"\0" + bytes(row[::2] << 4 | row[1::2]) for row in levels)
    header = struct.pack(">IIBBBBB", image.width, image.height, 4, 0, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"tRNS", struct.pack(">H", transparent))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])
