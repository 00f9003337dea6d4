import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage")

import skimage.data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pipeline.catalogue import find_model, load_model
from pipeline.training.evaluation import evaluate, measure, measure_sharpness
from pipeline.training.tables import markdown_table


@pytest.fixture(scope="module")
def coffee(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "coffee.png"
    Image.fromarray(skimage.data.coffee()[:160, :200]).save(path)
    return path


def test_psnr_and_ssim_are_those_of_scikit_image_and_of_the_formula():
    truth = skimage.data.astronaut()[:100, :120]
    noisy = np.clip(truth + np.random.default_rng(0).normal(0, 8, truth.shape), 0, 255).astype(np.uint8)
    found = measure(truth, noisy)
    assert found["psnr_db"] == peak_signal_noise_ratio(truth, noisy)
    assert found["ssim"] == structural_similarity(truth, noisy, channel_axis=2)
    error = np.square(truth.astype(float) - noisy).mean()
    assert found["psnr_db"] == pytest.approx(10 * np.log10(255**2 / error))


def test_blurred_is_less_sharp():
    image = Image.fromarray(skimage.data.astronaut()[:128, :128])
    small = image.resize((32, 32)).resize((128, 128), Image.Resampling.BICUBIC)
    assert measure_sharpness(np.asarray(small)) < measure_sharpness(np.asarray(image))


def test_restore_gains_and_leaves_clean_photographs_alone(coffee):
    """On a photograph outside the training set; what its card promises holds for the mean of several."""
    found = evaluate(load_model(find_model("restore")), [coffee], with_filters=False)
    psnr = found.summary().pivot_table(index="strength", columns="method", values="psnr_db")
    for strength in ("medium: blur 0.5, noise 12, JPEG 65", "heavy: blur 1, noise 20, JPEG 40", "sigma 20"):
        assert psnr.loc[strength, "model"] > psnr.loc[strength, "input"] + 0.5
    assert psnr.loc["JPEG 95", "model"] > 35
    assert {crop.photograph for crop in found.crops} == {"coffee.png"}


def test_upscale2x_beats_lanczos(coffee):
    found = evaluate(load_model(find_model("upscale2x")), [coffee])
    assert found.gain_db("clean", over=["Lanczos", "bicubic"]) > 0.3
    assert "**" in markdown_table(found.summary())


def test_best_parameter_of_a_filter_is_chosen_for_each_damage(coffee):
    found = evaluate(load_model(find_model("restore")), [coffee])
    summary = found.summary()
    tried = found.table[found.table["method"] == "non-local means"]
    for row in summary[summary["method"] == "non-local means"].itertuples():
        same = tried[(tried["kind"] == row.kind) & (tried["strength"] == row.strength)]
        assert row.psnr_db == same["psnr_db"].max()
