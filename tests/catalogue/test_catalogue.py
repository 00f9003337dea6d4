import dataclasses
import hashlib
import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.catalogue import find_model, inspect_model, list_models, load_model
from pipeline.errors import ModelError

GOLDEN = Path(__file__).parent / "golden"
BACKENDS = [name for name in ("jax", "torch", "tensorflow") if importlib.util.find_spec(name)]

each_model = pytest.mark.parametrize("card", list_models(), ids=lambda card: card.name)

# Runs the catalogue in a process of its own, since Keras has one backend a process.
PREDICT = """
import sys, numpy
from pipeline.catalogue import find_model, load_model
tiles = numpy.load(sys.argv[1])
numpy.savez(sys.argv[2], **{name: load_model(find_model(name)).predict(tiles) for name in sys.argv[3:]})
import keras
print(keras.backend.backend())
"""


def exactly(card):
    """In full precision, whatever the processor can."""
    return load_model(dataclasses.replace(card, precision="f32"))


@pytest.fixture(scope="module")
def sharpen():
    return load_model(find_model("sharpen"))


def crop():
    """A piece of a picture: a bright disc on a gradient, with noise that is the same everywhere."""
    rows, columns = np.mgrid[:96, :64].astype(np.float32)
    disc = (rows - 40) ** 2 + (columns - 30) ** 2 < 400
    picture = np.stack([rows / 96, columns / 64, np.where(disc, 0.9, 0.2)], axis=2)
    noise = np.sin(rows * 12.9898 + columns * 78.233)[:, :, np.newaxis] * 0.04
    return np.clip(picture + noise, 0, 1).astype(np.float32)[np.newaxis]


def predict_in_a_process(tmp_path, backend):
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    if backend:
        environment["KERAS_BACKEND"] = backend
    np.save(tmp_path / "tiles.npy", crop())
    names = [card.name for card in list_models()]
    command = [sys.executable, "-c", PREDICT, str(tmp_path / "tiles.npy"), str(tmp_path / "out.npz"), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    with np.load(tmp_path / "out.npz") as found:
        return done.stdout.split()[-1], dict(found)


def test_importing_the_catalogue_does_not_import_keras():
    code = "import sys, pipeline.catalogue; sys.exit('keras' in sys.modules or 'openvino' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_openvino_is_the_backend_unless_the_environment_says_otherwise(tmp_path):
    assert predict_in_a_process(tmp_path, None)[0] == "openvino"


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_predicts_the_same(tmp_path, backend):
    """Within one level of 255, in full precision."""
    used, found = predict_in_a_process(tmp_path, backend)
    assert used == backend
    for card in list_models():
        assert np.abs(found[card.name] - exactly(card).predict(crop())).max() <= 1 / 255


@each_model
def test_reduced_precision_is_55_db_from_the_full_one(card):
    """Where the processor computes in bfloat16; elsewhere they are the same."""
    difference = load_model(card).predict(crop()) - exactly(card).predict(crop())
    assert np.square(difference).mean() <= 10**-5.5


@each_model
def test_golden_output_on_a_fixed_crop(card):
    """What the weights made of the crop when they were shipped, in whole levels."""
    expected = np.load(GOLDEN / f"{card.name}.npy")
    found = np.rint(np.clip(exactly(card).predict(crop())[0], 0, 1) * 255)
    assert np.abs(found - expected).max() <= 1


@each_model
def test_every_model_loads_and_keeps_dtype_and_makes_scale_times_the_size(card):
    model = load_model(card)
    tiles = np.random.default_rng(0).random((3, 64, 96, 3), dtype=np.float32)
    predicted = model.predict(tiles)
    assert (predicted.shape, predicted.dtype) == ((3, card.scale * 64, card.scale * 96, 3), np.float32)
    assert model.label == f"{card.name}@{card.sha256[:8]}"


@each_model
def test_card_says_what_the_file_holds(card):
    assert inspect_model(dataclasses.replace(card, halo=None, parameters=None)).parameters == card.parameters
    assert Path(card.url).stat().st_size <= 1_000_000


@each_model
def test_pixels_beyond_the_halo_do_not_matter(card):
    """On every phase of the network's stride."""
    model = load_model(card)
    size = 4 * card.halo + 64
    image = np.random.default_rng(5).random((1, size, size, 3), dtype=np.float32)
    before = model.predict(image)
    for offset in range(8):
        marked = image.copy()
        marked[0, size // 2 + offset, size // 2 + offset] = 1 - marked[0, size // 2 + offset, size // 2 + offset]
        changed = np.abs(model.predict(marked) - before).max(axis=(0, 3)) > 1e-5
        rows, columns = (places // card.scale for places in np.nonzero(changed))
        reach = max(abs(rows - size // 2 - offset).max(), abs(columns - size // 2 - offset).max())
        assert 0 < reach <= card.halo


def test_prediction_of_a_tile_does_not_depend_on_its_batch(sharpen):
    tiles = np.random.default_rng(1).random((5, 32, 32, 3), dtype=np.float32)
    single = np.concatenate([sharpen.predict(tile[np.newaxis]) for tile in tiles])
    np.testing.assert_allclose(sharpen.predict(tiles), single, atol=1e-6)


def test_results_stay_what_they_are_when_more_is_predicted(sharpen):
    first = sharpen.predict(np.zeros((1, 32, 32, 3), np.float32))
    sharpen.predict(np.ones((1, 32, 32, 3), np.float32))
    assert not first.any()


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_may_share_a_model(threads):
    model = load_model(find_model("restore"), threads)
    tiles = np.random.default_rng(2).random((8, 1, 48, 48, 3), dtype=np.float32)
    expected = [model.predict(tile) for tile in tiles]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(model.predict, [*tiles, *tiles]))
    assert all(np.array_equal(result, expected[number % 8]) for number, result in enumerate(results))


def test_unknown_model_names_those_that_there_are():
    with pytest.raises(ModelError, match=r"no model is named 'nonsense'; there are: restore, upscale2x, sharpen"):
        find_model("nonsense")


def with_file(card, path, content):
    path.write_bytes(content)
    return dataclasses.replace(card, url=str(path))


def test_altered_file_is_refused_before_it_is_loaded(tmp_path):
    card = find_model("restore")
    content = bytearray(Path(card.url).read_bytes())
    content[-100] ^= 1
    altered = with_file(card, tmp_path / "altered.keras", content)
    for check in (inspect_model, load_model):
        with pytest.raises(ModelError, match="its file's SHA-256 is"):
            check(altered)


def test_missing_file_is_told(tmp_path):
    missing = dataclasses.replace(find_model("sharpen"), url=str(tmp_path / "missing.keras"))
    with pytest.raises(ModelError, match=r"cannot load model 'sharpen'.*No such file"):
        load_model(missing)


def test_file_that_keras_cannot_read_is_told(tmp_path):
    junk = with_file(find_model("sharpen"), tmp_path / "junk.keras", b"foo")
    junk = dataclasses.replace(junk, sha256=hashlib.sha256(b"foo").hexdigest())
    with pytest.raises(ModelError, match="cannot load model 'sharpen' with "):
        load_model(junk)
