import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline.domain import FITS, Recipe
from pipeline.stages.resize import place_image, plan_geometry, resize_image
from tests.stages.pictures import BLUE, GREEN, RED, WHITE, assert_close, corners, encode, quadrants

sides = st.integers(1, 16383)
sizes = st.tuples(sides, sides)
recipes = st.builds(Recipe, max_width=sides, max_height=sides, fit=st.sampled_from(FITS), enlarge=st.booleans())


class SizeOnly:
    """Stands for an image of any size in `ImageOps`, which asks it to resize and so tells the size."""

    mode = "L"

    def __init__(self, size):
        self.size, (self.width, self.height) = size, size

    def resize(self, size, resample=None, box=None):
        return size


@given(sizes, recipes)
def test_fit_never_exceeds_the_box_and_has_no_empty_side(size, recipe):
    geometry = plan_geometry(size, recipe)
    for scaled, canvas, limit in zip(
        geometry.size, geometry.canvas, (recipe.max_width, recipe.max_height), strict=True
    ):
        assert 1 <= scaled <= canvas <= limit


@given(sizes, recipes)
def test_fit_never_enlarges_unless_asked(size, recipe):
    geometry = plan_geometry(size, replace(recipe, enlarge=False))
    left, top, right, bottom = geometry.crop
    # Less than a pixel is the rounding of sizes.
    assert geometry.size[0] <= max(1, right - left) + 0.5
    assert geometry.size[1] <= max(1, bottom - top) + 0.5
    assert geometry.size[0] <= size[0]
    assert geometry.size[1] <= size[1]


@given(sizes, recipes)
def test_crop_box_is_central_and_within_the_source(size, recipe):
    left, top, right, bottom = plan_geometry(size, recipe).crop
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert abs(left + right - size[0]) <= 1
    assert abs(top + bottom - size[1]) <= 1


@given(sizes, sizes)
@example((2048, 1), (1024, 1024))
def test_inside_rounds_as_pillow_does(size, box):
    recipe = Recipe(max_width=box[0], max_height=box[1], fit="inside", enlarge=True)
    expected = ImageOps.contain(SizeOnly(size), box)
    if isinstance(expected, Image.Image):  # Where a side would be 0, it makes an empty image.
        expected = expected.size
    assert plan_geometry(size, recipe).size == tuple(max(1, side) for side in expected)


@given(sizes, recipes)
def test_inside_keeps_the_aspect_within_a_pixel(size, recipe):
    width, height = plan_geometry(size, replace(recipe, fit="inside")).size
    fitting = min(recipe.max_width / size[0], recipe.max_height / size[1])
    scale = fitting if recipe.enlarge else min(1, fitting)
    assert abs(width - scale * size[0]) <= 1
    assert abs(height - scale * size[1]) <= 1


@given(sizes, sizes)
def test_cover_and_fill_have_the_size_of_the_box_when_enlarging(size, box):
    for fit in ("cover", "fill", "contain"):
        recipe = Recipe(max_width=box[0], max_height=box[1], fit=fit, enlarge=True)
        assert plan_geometry(size, recipe).canvas == box


@given(sizes, sizes)
def test_cover_crops_to_the_aspect_of_the_result(size, box):
    recipe = Recipe(max_width=box[0], max_height=box[1], fit="cover", enlarge=True)
    left, top, right, bottom = plan_geometry(size, recipe).crop
    assert (right - left) * box[1] == pytest.approx((bottom - top) * box[0])


@pytest.mark.parametrize(
    ("fit", "enlarge", "expected"),
    [
        ("inside", False, (80, 20)),
        ("inside", True, (100, 25)),
        ("cover", False, (80, 20)),
        ("cover", True, (100, 50)),
        ("contain", False, (100, 50)),
        ("fill", False, (80, 20)),
        ("fill", True, (100, 50)),
    ],
)
def test_result_of_an_image_smaller_than_the_box(fit, enlarge, expected):
    recipe = Recipe(max_width=100, max_height=50, fit=fit, enlarge=enlarge)
    assert resize_image(encode(quadrants(80, 20)), recipe).image.size == expected


def test_cover_without_enlarging_crops_only_the_side_that_is_too_large():
    recipe = Recipe(max_width=100, max_height=50, fit="cover")
    image = Image.linear_gradient("L").resize((300, 20))
    result = resize_image(encode(image), recipe).image
    assert result.size == (100, 20)
    assert np.array_equal(np.asarray(result), np.asarray(image)[:, 100:200])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("fit", FITS)
def test_orientation_is_applied_to_pixels_and_box(orientation, file_format, fit):
    upright = quadrants(320, 160)
    recipe = Recipe(max_width=100, max_height=60, fit=fit)
    result = resize_image(_stored_turned(upright, orientation, file_format), recipe).image
    assert result.size == plan_geometry(upright.size, recipe).canvas
    inner = result.crop((0, 5, 100, 55)) if fit == "contain" else result
    for actual, expected in zip(corners(inner), (RED, GREEN, BLUE, WHITE), strict=True):
        assert_close(actual, expected, 12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_crop_is_the_same_pixels_for_every_orientation(orientation):
    upright = Image.effect_noise((41, 30), 80)
    recipe = Recipe(max_width=20, max_height=60, fit="cover")
    expected = upright.crop((10, 0, 30, 30))
    result = resize_image(_stored_turned(upright, orientation, "PNG"), recipe).image
    assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_unknown_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert resize_image(encode(quadrants(), "JPEG", exif=exif), Recipe()).image.size == (64, 32)


def test_broken_exif_does_not_cost_the_image():
    data = encode(quadrants(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12junk")
    assert resize_image(data, Recipe()).image.size == (64, 32)


def test_image_of_the_right_size_is_not_resampled():
    noise = Image.effect_noise((50, 40), 90).convert("RGB")
    result = resize_image(encode(noise), Recipe(max_width=50, max_height=40)).image
    assert result.tobytes() == noise.tobytes()


def test_large_jpeg_decoded_at_a_fraction_looks_like_one_decoded_whole():
    image = quadrants(1003, 777)
    recipe = Recipe(max_width=100, max_height=100)
    fast = resize_image(encode(image, "JPEG", quality=95), recipe).image
    assert_close(np.asarray(fast), np.asarray(resize_image(encode(image), recipe).image), 16)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2000)])
def test_extreme_sizes_survive_every_fit(fit, size):
    for enlarge in (False, True):
        recipe = Recipe(max_width=64, max_height=48, fit=fit, enlarge=enlarge)
        geometry = plan_geometry(size, recipe)
        result = resize_image(encode(Image.new("RGB", size, RED)), recipe).image
        assert result.size == geometry.canvas
        assert_close(result.getpixel(geometry.offset), RED)


def test_contain_centres_on_the_background_and_is_opaque():
    image = Image.new("RGBA", (40, 40), (0, 0, 255, 0))
    recipe = Recipe(max_width=80, max_height=40, fit="contain", background="#00ff00")
    result = resize_image(encode(image), recipe).image
    assert (result.mode, result.size) == ("RGB", (80, 40))
    assert result.getcolors() == [(3200, GREEN)]


def test_grey_on_a_grey_canvas_stays_grey():
    recipe = Recipe(max_width=80, max_height=40, fit="contain")
    result = resize_image(encode(Image.new("L", (40, 40), 7)), recipe).image
    assert (result.mode, result.getpixel((0, 0)), result.getpixel((40, 20))) == ("L", 255, 7)


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, GREEN)]
    for file_format in ("GIF", "WEBP", "PNG"):
        data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], duration=50)
        assert_close(resize_image(data, Recipe()).image.convert("RGB").getpixel((5, 5)), RED, 3)


def test_picture_carries_no_metadata_and_no_file():
    exif = Image.Exif()
    exif[0x013B] = "someone"
    for size in (64, 20):
        data = encode(quadrants(), "JPEG", exif=exif, comment=b"secret", dpi=(300, 300))
        picture = resize_image(data, Recipe(max_width=size))
        assert picture.image.info == {}
        assert type(picture.image) is Image.Image
        assert picture.copyright == b""


def _stored_turned(upright: Image.Image, orientation: int, file_format: str) -> bytes:
    """Encode an image so that its EXIF orientation turns it upright again."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    data = encode(stored, file_format, exif=exif)
    assert ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size == upright.size
    return data


@pytest.mark.parametrize(
    ("size", "box", "fit", "expected"),
    [
        ((50, 40), (100, 100), "inside", (100, 80)),
        ((50, 40), (75, 75), "inside", (75, 60)),
        ((50, 40), (400, 400), "inside", (100, 80)),
        ((200, 40), (100, 100), "inside", (100, 20)),
        ((50, 40), (100, 100), "contain", (100, 80)),
        ((50, 40), (60, 60), "cover", (60, 60)),
        ((50, 40), (400, 400), "cover", (100, 80)),
        ((50, 40), (90, 60), "fill", (90, 60)),
        ((50, 40), (400, 30), "fill", (100, 30)),
    ],
)
def test_a_model_lets_an_image_grow_to_its_scale_and_no_further(size, box, fit, expected):
    recipe = Recipe(max_width=box[0], max_height=box[1], fit=fit)
    assert plan_geometry(size, recipe, growth=2).size == expected


@given(
    width=st.integers(1, 300), height=st.integers(1, 300), fit=st.sampled_from(["inside", "cover", "contain", "fill"])
)
def test_for_a_model_that_enlarges_an_image_that_is_to_grow_keeps_its_pixels(width, height, fit):
    recipe = Recipe(max_width=150, max_height=120, fit=fit)
    picture = resize_image(encode(Image.new("RGB", (width, height), "#336699"), "PNG"), recipe, model_scale=2)
    plain = plan_geometry((width, height), recipe, growth=2)
    if picture.placement is None:
        assert picture.image.size == plain.canvas
    else:
        left, top, right, bottom = plain.crop
        assert picture.placement.size == plain.size
        assert abs(picture.image.width - (right - left)) <= 1
        assert abs(picture.image.height - (bottom - top)) <= 1
        placed = place_image(
            picture.image.resize((2 * picture.image.width, 2 * picture.image.height)), picture.placement
        )
        assert placed.size == plain.canvas
