import numpy as np
import pytest

from pipeline.catalogue import find_model, load_model
from pipeline.training.network_file import write_network
from pipeline.training.sharpen import AMOUNT, RADIUS, SIGMA, build_network, sharpening_kernel


def test_network_is_an_unsharp_mask():
    """Against the formula, x + amount * (x - blurred x), with SciPy's blur."""
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(0).random((1, 40, 50, 3), dtype=np.float32)
    blurred = ndimage.gaussian_filter(image, (0, SIGMA, SIGMA, 0), radius=(0, RADIUS, RADIUS, 0))
    expected = np.clip(image + AMOUNT * (image - blurred), 0, 1)
    inner = np.s_[:, RADIUS:-RADIUS, RADIUS:-RADIUS]
    np.testing.assert_allclose(load_model(find_model("sharpen")).predict(image)[inner], expected[inner], atol=1e-5)


def test_kernel_sums_to_one_and_is_as_wide_as_the_card_says():
    assert sharpening_kernel().sum() == pytest.approx(1)
    assert sharpening_kernel().shape == (2 * find_model("sharpen").halo + 1,) * 2


def test_file_can_be_made_again(tmp_path):
    """Byte for byte, where Keras, HDF5 and zlib are of the same versions; so the weights alone are compared here."""
    card = find_model("sharpen")
    network = build_network()
    write_network(network, tmp_path / "one.keras")
    write_network(build_network(), tmp_path / "two.keras")
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()
    assert network.count_params() == card.parameters
