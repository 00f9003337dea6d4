import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.catalogue import EnhancementModel, find_model, load_model
from pipeline.errors import EnhanceError
from pipeline.stages import enhance
from pipeline.stages.enhance import enhance_image, enhance_pixels, plan_tiles
from pipeline.stages.picture import Picture, Placement


@pytest.fixture(scope="module")
def sharpen():
    return load_model(find_model("sharpen"))


@pytest.fixture(scope="module", params=["restore", "upscale2x", "sharpen"])
def model(request):
    return load_model(dataclasses.replace(find_model(request.param), precision="f32"))


def noise(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows * 1000 + columns).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "size_rows_cols", [(1, 1), (1, 7), (300, 1), (2, 2), (33, 31), (1024, 32), (1025, 40), (60, 2100), (530, 1100)]
)
def test_tiles_give_what_the_network_gives_on_the_whole_image(model, size_rows_cols):
    """Extended by reflection, and within one level of 255."""
    pixels = noise(*size_rows_cols)
    scale, margin = model.scale, min(model.halo, enhance.MAX_MARGIN)
    rows, columns = size_rows_cols
    after = [
        (margin, margin + plan_tiles(length, model.halo, enhance.MAX_STEP // scale)[-1].stop - length)
        for length in size_rows_cols
    ]
    whole = np.pad(pixels, (*after, (0, 0)), mode="reflect")
    expected = model.predict(whole[np.newaxis].astype(np.float32) / 255)[0]
    expected = expected[scale * margin : scale * (margin + rows), scale * margin : scale * (margin + columns)]
    difference = enhance_pixels(pixels, model) / 255.0 - np.clip(expected, 0, 1)
    assert difference.shape == (scale * rows, scale * columns, 3)
    assert np.abs(difference).max() <= 1 / 255


@given(length=st.integers(1, 20_000), halo=st.integers(0, 64))
def test_tiles_cover_an_axis_and_are_few_and_bounded(length, halo):
    spans = plan_tiles(length, halo)
    assert len(spans) <= -(-length // enhance.MAX_STEP)
    assert (spans[0].start, spans[-1].start < length <= spans[-1].stop) == (0, True)
    assert all(before.stop == after.start for before, after in itertools.pairwise(spans))
    assert spans[-1].stop - length < enhance.STEP_MULTIPLE
    for span in spans:
        step = span.stop - span.start
        assert (step % enhance.STEP_MULTIPLE, step <= enhance.MAX_STEP) == (0, True)
        assert span.start - span.first == min(halo, span.start + enhance.MAX_MARGIN)
        assert span.last - span.stop == min(halo, spans[-1].stop - span.stop + enhance.MAX_MARGIN)


@pytest.mark.parametrize("edge", ["top", "left"])
def test_an_image_has_no_frame(model, edge):
    """What is beyond the edge is grey to a network, but the image's own reflection to us."""
    pixels = np.full((64, 64, 3), 255, np.uint8)
    enhanced = enhance_pixels(pixels, model).astype(int)
    rim = enhanced[0] if edge == "top" else enhanced[:, 0]
    assert np.abs(rim - enhanced[32, 32]).max() <= 3


@pytest.mark.parametrize("level", [0, 1, 127, 201, 255])
def test_flat_image_keeps_its_level(sharpen, level):
    pixels = np.full((20, 30, 3), level, np.uint8)
    assert np.array_equal(enhance_pixels(pixels, sharpen), pixels)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_learnt_models_keep_a_flat_image_nearly_flat(model, level):
    pixels = np.full((40, 50, 3), level, np.uint8)
    assert np.abs(enhance_pixels(pixels, model).astype(int) - level).max() <= 4


def test_strength_blends_with_the_picture_as_it_is(sharpen):
    before = Picture(Image.fromarray(noise(40, 30)), "PNG")
    full, half, none = (np.asarray(enhance_image(before, sharpen, part).image, int) for part in (1.0, 0.5, 0.0))
    assert np.array_equal(none, noise(40, 30))
    assert np.abs(half - (full + none) / 2).max() <= 1


def test_doubling_model_leaves_a_picture_alone_that_has_its_size():
    picture = Picture(Image.fromarray(noise(40, 30)), "PNG")
    assert enhance_image(picture, load_model(find_model("upscale2x"))) is picture


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_doubled_picture_has_exactly_the_size_of_its_placement(mode, strength):
    image = Image.effect_noise((50, 40), 40).convert(mode)
    before = Picture(image, "PNG", placement=Placement((75, 60), (75, 60), (0, 0), "#ffffff"))
    after = enhance_image(before, load_model(find_model("upscale2x")), strength)
    assert (after.image.mode, after.image.size, after.placement) == (mode, (75, 60), None)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_mode_and_alpha_and_copyright_survive(sharpen, mode):
    image = Image.effect_noise((40, 30), 60).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((40, 30)))
    before = Picture(image.convert(mode), "PNG", b"owner")
    after = enhance_image(before, sharpen)
    assert (after.image.mode, after.image.size, after.copyright) == (mode, (40, 30), b"owner")
    assert after.image.tobytes() != before.image.tobytes()
    if mode.endswith("A"):
        assert after.image.getchannel("A").tobytes() == before.image.getchannel("A").tobytes()


def test_picture_that_came_in_is_not_changed(sharpen):
    image = Image.effect_noise((40, 30), 60).convert("RGB")
    before = image.tobytes()
    enhance_image(Picture(image, "PNG"), sharpen)
    assert image.tobytes() == before


def test_model_that_fails_is_an_enhance_error():
    def fail(tiles):
        raise RuntimeError("out of something")

    picture = Picture(Image.new("RGB", (4, 3)), "PNG")
    with pytest.raises(EnhanceError, match=r"cannot enhance 4x3 pixels with sharpen@\w{8}: out of something"):
        enhance_image(picture, EnhancementModel(find_model("sharpen"), fail))
