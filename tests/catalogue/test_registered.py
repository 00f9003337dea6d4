"""Models of an operator's own."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline import Recipe
from pipeline.catalogue import find_model, inspect_model, list_models, load_model
from pipeline.errors import ModelError

os.environ.setdefault("KERAS_BACKEND", "openvino")
import keras
from keras import layers

CONV = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}


def register(folder: Path, network, name="own", scale=1, **changes) -> Path:
    """Save a network and write the settings file that registers it."""
    file = folder / f"{name}.keras"
    network.save(file)
    entry = {
        "url": f'"{file.name}"',
        "sha256": f'"{hashlib.sha256(file.read_bytes()).hexdigest()}"',
        "scale": str(scale),
        **changes,
    }
    registry = folder / "models.toml"
    registry.write_text(f"[models.{name}]\n" + "".join(f"{field} = {value}\n" for field, value in entry.items()))
    return registry


def same_size(size=(None, None)):
    image = keras.Input((*size, 3))
    hidden = layers.Conv2D(4, 3, activation="relu", **CONV)(image)
    return keras.Model(image, layers.Conv2D(3, 3, **CONV)(hidden))


def strided():
    """Down and up again by transposed convolution, which Keras exports for one size only."""
    image = keras.Input((None, None, 3))
    half = layers.Conv2D(4, 4, strides=2, activation="relu", **CONV)(image)
    return keras.Model(image, layers.Conv2DTranspose(3, 4, strides=2, **CONV)(half))


def doubling():
    image = keras.Input((None, None, 3))
    return keras.Model(image, layers.Conv2D(3, 3, **CONV)(layers.UpSampling2D(2)(image)))


@pytest.mark.parametrize(("build", "scale"), [(same_size, 1), (strided, 1), (doubling, 2)])
def test_registered_model_predicts_what_keras_does_on_any_size(tmp_path, build, scale):
    network = build()
    card = inspect_model(find_model("own", register(tmp_path, network, scale=scale)))
    assert (card.scale, card.parameters) == (scale, network.count_params())
    assert card.halo == 16
    model = load_model(card)
    for rows, columns in ((64, 64), (32, 96), (128, 64)):
        tiles = np.random.default_rng(rows).random((2, rows, columns, 3), dtype=np.float32)
        expected = keras.ops.convert_to_numpy(network(tiles))
        # Keras' own way may compute in bfloat16.
        np.testing.assert_allclose(model.predict(tiles), expected, atol=0.05)


def test_registered_model_does_a_job(tmp_path, monkeypatch, photographs):
    monkeypatch.setenv("PIPELINE_MODELS", str(register(tmp_path, same_size())))
    assert [card.name for card in pipeline.models()] == ["restore", "upscale2x", "sharpen", "own"]
    shown = pipeline.preview(next(photographs.rglob("*.jpg")), Recipe(max_width=100, enhance="own"))
    assert shown.after.size == (100, 75)


def test_without_the_file_there_are_the_shipped_models(tmp_path):
    assert list_models(tmp_path / "missing.toml") == list_models()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": '"abc"'}, "allowed are 64 hexadecimal digits"),
        ({"scale": "3"}, "scale is 3; allowed is 1 or 2"),
        ({"scale": "true"}, "scale is True; allowed is 1 or 2"),
        ({"url": '""'}, "url is ''; allowed is a path or a URL"),
        ({"colour": '"red"'}, "its fields are url, sha256, scale, description"),
    ],
)
def test_wrong_entry_is_told_with_its_file_and_name(tmp_path, changes, message):
    registry = register(tmp_path, same_size(), **changes)
    with pytest.raises(ModelError, match=message) as caught:
        list_models(registry)
    assert f"model 'own' in '{registry}'" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[models", "cannot read the models"),
        ("[own]\nurl = 'a'", "allowed are tables such as"),
        ("models = 3", "allowed are"),
    ],
)
def test_file_that_is_no_such_file_is_told(tmp_path, content, message):
    (tmp_path / "models.toml").write_text(content)
    with pytest.raises(ModelError, match=message):
        list_models(tmp_path / "models.toml")


def test_name_of_the_package_cannot_be_taken(tmp_path):
    registry = register(tmp_path, same_size(), name="restore")
    with pytest.raises(ModelError, match="registers 'restore', a name of the package"):
        list_models(registry)


def with_lambda():
    image = keras.Input((None, None, 3))
    return keras.Model(image, layers.Lambda(lambda values: values * 1.0)(image))


class Foreign(layers.Layer):
    def call(self, values):
        return values


def with_foreign_layer():
    image = keras.Input((None, None, 3))
    return keras.Model(image, Foreign()(image))


def halving():
    image = keras.Input((None, None, 3))
    return keras.Model(image, layers.Conv2D(3, 3, strides=2, **CONV)(image))


def to_grey():
    image = keras.Input((None, None, 3))
    return keras.Model(image, layers.Conv2D(1, 3, **CONV)(image))


def of_one_size():
    return same_size((64, 64))


def with_a_mean_of_all():
    image = keras.Input((None, None, 3))
    mean = layers.GlobalAveragePooling2D(keepdims=True)(image)
    return keras.Model(image, layers.Subtract()([image, mean]))


def of_two_images():
    images = [keras.Input((None, None, 3)), keras.Input((None, None, 3))]
    return keras.Model(images, layers.Add()(images))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (with_lambda, "holds 'Lambda', which is code of its own"),
        (with_foreign_layer, "holds 'Foreign', which is code of its own"),
        (halving, "makes 32x32x3 of 64x64x3; registered with scale 1"),
        (to_grey, "makes 64x64x1 of 64x64x3; registered with scale 1"),
        (doubling, "makes 128x128x3 of 64x64x3; registered with scale 1"),
        (of_one_size, "model 'own'"),
        (with_a_mean_of_all, "cannot be run in tiles"),
        (of_two_images, "model 'own'"),
    ],
)
def test_what_is_no_usable_model_is_refused_in_one_line_before_the_run(tmp_path, monkeypatch, build, message):
    monkeypatch.setenv("PIPELINE_MODELS", str(register(tmp_path, build())))
    monkeypatch.setenv("PIPELINE_DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(ModelError, match=message) as caught:
        pipeline.run(tmp_path, tmp_path / "out", Recipe(enhance="own"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_file_that_was_changed_after_it_was_registered_is_refused(tmp_path):
    registry = register(tmp_path, same_size())
    with (tmp_path / "own.keras").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ModelError, match="its file's SHA-256 is"):
        inspect_model(find_model("own", registry))
