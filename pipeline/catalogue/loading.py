"""From a model card to a model that predicts; Keras is imported here, on use.

Keras' ``safe_mode`` is no sandbox, so a file is loaded only if it is in the catalogue and its SHA-256 is the card's,
and what an operator registers is looked into before: it may consist of Keras' own layers only.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import fsspec
import numpy as np
from numpy.typing import NDArray

from pipeline.catalogue.cards import ModelCard
from pipeline.catalogue.inference import Infer, prepare_inference
from pipeline.errors import ModelError

# These Keras layers run code that the file, or another file, brings along.
_FOREIGN_LAYERS: Final = frozenset({"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"})

# What Keras' configurations call plain values; they have no module.
_VALUES: Final = frozenset({"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__tensor__", "__tuple__"})

# Rows and columns of what a registered network is tried on; the widest halo that can be found is half of it.
_PROBE: Final = 256
# A network's stride has to divide this, and registered ones get a halo that is a multiple of it.
_STRIDE: Final = 16

_LEVEL: Final = 1 / 255


class EnhancementModel:
    """A loaded model, which threads may share.

    Parameters
    ----------
    card : ModelCard
        With its halo.
    infer : callable
        From and to float32, shape (N, H, W, 3), values 0 to 1.
    """

    def __init__(self, card: ModelCard, infer: Infer) -> None:
        assert card.halo is not None
        self.card = card
        self.label = card.label
        self.scale = card.scale
        self.halo: int = card.halo
        self._infer = infer

    def predict(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network.

        Parameters
        ----------
        tiles : ndarray of float32, shape (N, H, W, 3)
            Values 0 to 1. A new H or W costs a compilation on some backends; N may vary freely.

        Returns
        -------
        ndarray of float32, shape (N, scale * H, scale * W, 3)
        """
        return self._infer(tiles)


def load_model(card: ModelCard, threads: int = 1) -> EnhancementModel:
    """Load a model's network with Keras, on OpenVINO unless ``KERAS_BACKEND`` or an earlier import says otherwise.

    It is compiled and has predicted once when this returns.

    Parameters
    ----------
    card : ModelCard
        A registered one is inspected first, if that has not been done.
    threads : int
        How many predictions may run at once, each on one core; OpenVINO only.

    Raises
    ------
    ModelError
        If the file is missing, altered or unusable.
    """
    card = inspect_model(card)
    model = EnhancementModel(card, _prepare(card, _read_verified(card), threads))
    model.predict(np.zeros((1, 64, 64, 3), np.float32))
    return model


@functools.lru_cache(maxsize=16)
def inspect_model(card: ModelCard) -> ModelCard:
    """Make sure that a model can be used, before a run begins; return its card with nothing left unknown.

    Of a shipped model only the file's hash is checked. A registered one is loaded and tried: it has to consist of
    Keras' own layers, to map an image of any size to one of `scale` times that size, and to depend on nothing farther
    away than a tile is wide.

    Raises
    ------
    ModelError
        If it cannot be used. The message is one line that says why.
    """
    content = _read_verified(card)
    if card.halo is not None:
        return card
    _require_own_layers(card, content)
    infer = _prepare(card, content, threads=1)
    _require_scale(card, infer)
    halo = _measure_halo(card, infer)
    return replace(card, halo=halo, parameters=_count_parameters(card, content))


def _read_verified(card: ModelCard) -> bytes:
    try:
        with fsspec.open(card.url, "rb") as file:
            content: bytes = file.read()
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"cannot load model {card.name!r}: {error}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != card.sha256:
        raise ModelError(
            f"cannot load model {card.name!r}: its file's SHA-256 is {sha256}, the catalogue says {card.sha256}"
        )
    return content


def _prepare(card: ModelCard, content: bytes, threads: int) -> Infer:
    os.environ.setdefault("KERAS_BACKEND", "openvino")
    try:
        return prepare_inference(_load_network(content), card.precision, threads)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot load model {card.name!r} with {os.environ['KERAS_BACKEND']}: {reason}") from error


def _load_network(content: bytes) -> Any:
    import keras

    # From the bytes that were verified, whatever has become of the file since.
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        path = Path(folder) / "network.keras"
        path.write_bytes(content)
        return keras.saving.load_model(path, compile=False, safe_mode=True)


def _require_own_layers(card: ModelCard, content: bytes) -> None:
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot load model {card.name!r}: {card.url!r} is no .keras file of Keras 3") from error
    for class_name, module in _classes(config):
        is_own = module == "keras" or module.startswith("keras.") or class_name in _VALUES
        if class_name in _FOREIGN_LAYERS or not is_own:
            raise ModelError(
                f"model {card.name!r} holds {class_name!r}, which is code of its own; allowed are Keras' own layers"
            )


def _classes(config: object) -> Iterator[tuple[str, str]]:
    """Yield class and module of every object that a network's configuration describes."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield str(config["class_name"]), str(config.get("module", ""))
        for value in config.values():
            yield from _classes(value)
    elif isinstance(config, list):
        for value in config:
            yield from _classes(value)


def _try(card: ModelCard, infer: Infer, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        return infer(tiles)
    except (RuntimeError, TypeError, ValueError) as error:
        rows, columns = tiles.shape[1:3]
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"model {card.name!r} fails on an image of {columns}x{rows} pixels: {reason}") from error


def _require_scale(card: ModelCard, infer: Infer) -> None:
    for rows, columns in ((64, 64), (96, 160)):
        found = np.shape(_try(card, infer, np.full((1, rows, columns, 3), 0.5, np.float32)))
        if found != (1, card.scale * rows, card.scale * columns, 3):
            raise ModelError(
                f"model {card.name!r} makes {_dimensions(found)} of {_dimensions((1, rows, columns, 3))}; "
                f"registered with scale {card.scale}, it has to keep the channels and make {card.scale} times the size"
            )


def _measure_halo(card: ModelCard, infer: Infer) -> int:
    """Find how far a change is felt, on noise, and make sure that tiles with that overlap give the whole.

    The noise is darker at one end, so that a tile's mean is not the whole's.
    """
    noise = np.random.default_rng(0).random((1, _PROBE, _PROBE, 3), dtype=np.float32)
    image = noise * np.linspace(0.1, 1, _PROBE, dtype=np.float32)[:, np.newaxis, np.newaxis]
    whole = _try(card, infer, image)
    middle, reach = _PROBE // 2, 0
    for row, column in ((middle, middle), (middle + 1, middle + 3), (middle - 5, middle + 2)):
        changed = image.copy()
        changed[0, row, column] = 1 - changed[0, row, column]
        difference = np.abs(_try(card, infer, changed) - whole).max(axis=(0, 3)) > _LEVEL / 100
        rows, columns = (np.nonzero(difference.any(axis=axis))[0] // card.scale for axis in (1, 0))
        if rows.size:
            reach = max(reach, *np.abs(rows - row), *np.abs(columns - column))
    halo = -(-max(reach, 1) // _STRIDE) * _STRIDE
    if halo + _STRIDE <= middle:
        part = _try(card, infer, np.ascontiguousarray(image[:, _STRIDE:, _STRIDE:]))
        inner = np.s_[:, card.scale * halo : -card.scale * halo, card.scale * halo : -card.scale * halo]
        if np.abs(whole[:, card.scale * _STRIDE :, card.scale * _STRIDE :][inner] - part[inner]).max() <= _LEVEL:
            return halo
    raise ModelError(
        f"model {card.name!r} cannot be run in tiles: a pixel depends on what is more than "
        f"{middle - _STRIDE} pixels away, or the network's stride does not divide {_STRIDE}"
    )


def _count_parameters(card: ModelCard, content: bytes) -> int:
    return int(_load_network(content).count_params())


def _dimensions(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:]))
