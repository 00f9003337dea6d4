import numpy as np
import pytest
from PIL import Image

from pipeline.catalogue import EnhancementModel, find_model, load_model
from pipeline.errors import EnhanceError
from pipeline.stages import enhance
from pipeline.stages.enhance import enhance_image, enhance_pixels
from pipeline.stages.picture import Picture


@pytest.fixture(scope="module")
def sharpen():
    return load_model("sharpen")


def noise(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows * 1000 + columns).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "size_rows_cols", [(1, 1), (1, 7), (300, 1), (2, 2), (249, 251), (250, 250), (251, 250), (301, 517)]
)
def test_tiles_give_what_the_network_gives_on_the_whole_image(sharpen, size_rows_cols):
    pixels = noise(*size_rows_cols)
    halo = sharpen.halo
    whole = np.pad(pixels, ((halo, halo), (halo, halo), (0, 0)), mode="reflect")
    expected = sharpen.predict(whole[np.newaxis].astype(np.float32) / 255)[0, halo:-halo, halo:-halo]
    difference = enhance_pixels(pixels, sharpen) / 255.0 - expected
    assert np.abs(difference).max() <= 1 / 255


@pytest.mark.parametrize("level", [0, 1, 127, 201, 255])
def test_flat_image_keeps_its_level(sharpen, level):
    pixels = np.full((20, 30, 3), level, np.uint8)
    assert np.array_equal(enhance_pixels(pixels, sharpen), pixels)


def test_more_tiles_than_a_batch_are_all_done(sharpen, monkeypatch):
    pixels = noise(300, 600)
    expected = enhance_pixels(pixels, sharpen)
    monkeypatch.setattr(enhance, "BATCH", 1)
    assert np.array_equal(enhance_pixels(pixels, sharpen), expected)


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
