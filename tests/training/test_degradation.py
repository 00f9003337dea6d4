import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.degradation import Degradation, degrade, draw_degradation, draw_light_degradation, through_jpeg
from pipeline.training.lessons import LESSONS
from pipeline.training.photographs import batches, draw_patch, split_photographs

GREY = np.full((200, 200, 3), 128, np.uint8)


@pytest.mark.parametrize("sigma", [3, 10, 20])
def test_gaussian_noise_has_the_deviation_that_it_says(sigma):
    noisy = degrade(GREY, Degradation(noise_sigma=sigma), np.random.default_rng(0))
    assert noisy.std() == pytest.approx(sigma, rel=0.02)


def test_poisson_noise_grows_with_the_root_of_the_brightness():
    rng = np.random.default_rng(0)
    dark, bright = (degrade(np.full_like(GREY, level), Degradation(photons=1000), rng).std() for level in (50, 200))
    assert bright / dark == pytest.approx(2, rel=0.05)
    assert bright == pytest.approx(np.sqrt(200 * 255 / 1000), rel=0.05)


def test_no_degradation_changes_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    assert np.array_equal(degrade(pixels, Degradation(), np.random.default_rng(0)), pixels)


def test_jpeg_loses_more_at_a_lower_quality():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    errors = [np.square(through_jpeg(pixels, quality).astype(float) - pixels).mean() for quality in (95, 70, 40)]
    assert errors == sorted(errors)


@given(seed=st.integers(0, 2**32))
def test_what_is_drawn_is_in_its_range_and_the_same_for_the_same_seed(seed):
    drawn = draw_degradation(np.random.default_rng(seed))
    assert drawn == draw_degradation(np.random.default_rng(seed))
    assert 0 <= drawn.blur_sigma <= 1.2
    assert 0 <= drawn.noise_sigma <= 23
    assert drawn.photons == np.inf or 255 <= drawn.photons <= 4000
    assert drawn.jpeg_quality is None or 35 <= drawn.jpeg_quality <= 95
    light = draw_light_degradation(np.random.default_rng(seed))
    assert (light.noise_sigma <= 4, 60 <= (light.jpeg_quality or 0) <= 95) == (True, True)


@pytest.mark.parametrize("name", LESSONS)
def test_pairs_lie_on_each_other(name):
    """The truth of a patch is where the patch is: shrunk to its size, it is nearest to it unshifted."""
    lesson = LESSONS[name]
    rows, columns = np.mgrid[:300, :300]
    picture = np.stack([np.sin(rows / 9) * 90 + 120, np.cos(columns / 7) * 90 + 120, (rows + columns) / 3], 2)
    made = batches([picture.astype(np.uint8)], lesson.clean_size, 8, lesson.make_pair, np.random.default_rng(0))
    given_patches, wanted = next(made)
    shape = given_patches.shape
    shrunk = wanted.reshape(8, shape[1], lesson.scale, shape[2], lesson.scale, 3).mean(axis=(2, 4))
    errors = {
        shift: np.square(np.roll(shrunk, shift, axis=(1, 2)) - given_patches)[:, 4:-4, 4:-4].mean()
        for shift in [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)]
    }
    assert min(errors, key=lambda shift: errors[shift]) == (0, 0)


@given(count=st.integers(2, 40), share=st.floats(0, 1), seed=st.integers(0, 100))
def test_split_keeps_photographs_whole_and_leaves_some_on_both_sides(count, share, seed):
    paths = list(range(count))
    split = split_photographs(paths, share, seed)
    assert sorted(split.training + split.validation) == paths
    assert split.training
    assert split.validation


def test_a_patch_is_of_the_picture():
    picture = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    patch = draw_patch(picture, 20, np.random.default_rng(1))
    assert patch.shape == (20, 20, 3)
    turned = [np.rot90(side, turn) for side in (picture, picture[:, ::-1]) for turn in range(4)]
    windows = (np.lib.stride_tricks.sliding_window_view(image, (20, 20, 3)) for image in turned)
    assert any((window == patch).all(axis=(-3, -2, -1)).any() for window in windows)
