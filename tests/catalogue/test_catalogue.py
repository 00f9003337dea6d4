import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from pipeline.catalogue import cards as catalogue
from pipeline.catalogue import find_model, load_model, models
from pipeline.errors import ModelError


@pytest.fixture(scope="module")
def sharpen():
    return load_model("sharpen")


def test_importing_the_catalogue_does_not_import_keras():
    code = "import sys, pipeline.catalogue; sys.exit('keras' in sys.modules or 'openvino' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_openvino_is_the_backend_unless_the_environment_says_otherwise():
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    code = (
        "from pipeline.catalogue import load_model; load_model('sharpen')\nimport keras; print(keras.backend.backend())"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "openvino"


@pytest.mark.parametrize("card", models(), ids=lambda card: card.name)
def test_every_model_loads_and_keeps_shape_dtype_and_range(card):
    model = load_model(card.name)
    tiles = np.random.default_rng(0).random((3, 64, 64, 3), dtype=np.float32)
    predicted = model.predict(tiles)
    assert (predicted.shape, predicted.dtype) == (tiles.shape, np.float32)
    assert model.label == f"{card.name}@{card.sha256[:8]}"


@pytest.mark.parametrize("card", models(), ids=lambda card: card.name)
def test_pixels_beyond_the_halo_do_not_matter(card):
    model = load_model(card.name)
    size = 4 * card.halo + 64
    flat = np.full((1, size, size, 3), 0.5, np.float32)
    marked = flat.copy()
    marked[0, size // 2, size // 2] = 1.0
    changed = np.abs(model.predict(marked) - model.predict(flat)).max(axis=(0, 3)) > 1e-6
    rows, columns = np.nonzero(changed)
    assert max(abs(rows - size // 2).max(), abs(columns - size // 2).max()) <= card.halo


def test_prediction_of_a_tile_does_not_depend_on_its_batch(sharpen):
    tiles = np.random.default_rng(1).random((5, 32, 32, 3), dtype=np.float32)
    single = np.concatenate([sharpen.predict(tile[np.newaxis]) for tile in tiles])
    np.testing.assert_allclose(sharpen.predict(tiles), single, atol=1e-6)


def test_threads_may_share_a_model(sharpen):
    tiles = np.random.default_rng(2).random((4, 48, 48, 3), dtype=np.float32)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(sharpen.predict, [tiles] * 16))
    assert all(np.array_equal(result, results[0]) for result in results)


def test_unknown_model_names_those_that_there_are():
    with pytest.raises(ModelError, match=r"no model is named 'nonsense'; there are: .*sharpen"):
        find_model("nonsense")


def test_altered_file_is_refused_before_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "WEIGHTS", tmp_path)
    (tmp_path / "sharpen.keras").write_bytes(b"altered")
    with pytest.raises(ModelError, match="its file's SHA-256 is"):
        load_model("sharpen")


def test_missing_file_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "WEIGHTS", tmp_path)
    with pytest.raises(ModelError, match=r"cannot load model 'sharpen'.*No such file"):
        load_model("sharpen")


def test_file_that_keras_cannot_read_is_told(tmp_path, monkeypatch):
    junk = replace(find_model("sharpen"), sha256="2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")
    monkeypatch.setattr(catalogue, "WEIGHTS", tmp_path)
    monkeypatch.setattr(catalogue, "_CARDS", (junk,))
    junk.path.write_bytes(b"foo")
    with pytest.raises(ModelError, match="cannot load model 'sharpen' with "):
        load_model("sharpen")
