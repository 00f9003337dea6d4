"""The catalogue: every model that a Recipe may name. Keras is imported only when one is loaded."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.catalogue.inference import Infer, prepare_inference
from pipeline.errors import ModelError

WEIGHTS: Final = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a model without loading it.

    Attributes
    ----------
    name : str
        As in a Recipe; its network is ``weights/NAME.keras``.
    description : str
        One line for users.
    scale : int
        Pixels of output a side for each pixel of input.
    sha256 : str
        Of the network's file.
    parameters : int
        Weights in the network.
    halo : int
        Pixels on each side that an output pixel may depend on (the radius of the receptive field), rounded up to a
        multiple of the network's stride, if it has one.
    """

    name: str
    description: str
    scale: int
    sha256: str
    parameters: int
    halo: int

    @property
    def path(self) -> Path:
        """The network's file."""
        return WEIGHTS / f"{self.name}.keras"


_CARDS: Final = (
    ModelCard(
        name="sharpen",
        description="an unsharp mask (sigma 1 pixel, amount 0.6) with fixed weights: crisper edges, nothing learnt",
        scale=1,
        sha256="c97e9600583f1c6a3674c558801177ef9f33301de498b901f84defe31381c28c",
        parameters=147,
        halo=3,
    ),
)


class EnhancementModel:
    """A loaded model. Threads may share one: their predictions take turns, each on all cores.

    Parameters
    ----------
    card : ModelCard
    infer : callable
        From and to float32, shape (N, H, W, 3), values 0 to 1.
    """

    def __init__(self, card: ModelCard, infer: Infer) -> None:
        self.card = card
        self._infer = infer
        # A request for each thread, on fewer cores each, was measured to be no faster.
        self._turn = Lock()

    @property
    def label(self) -> str:
        """Name and start of the hash, ``name@1a2b3c4d``: what the ledger keeps."""
        return f"{self.card.name}@{self.card.sha256[:8]}"

    @property
    def halo(self) -> int:
        """The card's: pixels on each side that an output pixel may depend on."""
        return self.card.halo

    def predict(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network.

        Parameters
        ----------
        tiles : ndarray of float32, shape (N, H, W, 3)
            Values 0 to 1. A new H or W costs a compilation on some backends; N may vary freely.

        Returns
        -------
        ndarray of float32, shape (N, H, W, 3)
        """
        with self._turn:
            return self._infer(tiles)


def models() -> list[ModelCard]:
    """List the catalogue."""
    return list(_CARDS)


def find_model(name: str) -> ModelCard:
    """Look a model up.

    Raises
    ------
    ModelError
        If the catalogue has none of that name.
    """
    for card in _CARDS:
        if card.name == name:
            return card
    raise ModelError(f"no model is named {name!r}; there are: {', '.join(card.name for card in _CARDS)}")


def load_model(name: str) -> EnhancementModel:
    """Load a model's network with Keras, on OpenVINO unless ``KERAS_BACKEND`` or an earlier import says otherwise.

    The file's hash is checked first: Keras' ``safe_mode`` is no sandbox, so nothing that is not in the catalogue is
    ever loaded.

    Raises
    ------
    ModelError
        If the catalogue has none of that name, or its file is missing, altered or unusable.
    """
    card = find_model(name)
    try:
        sha256 = hashlib.sha256(card.path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"cannot load model {name!r}: {error}") from error
    if sha256 != card.sha256:
        raise ModelError(
            f"cannot load model {name!r}: its file's SHA-256 is {sha256}, the catalogue says {card.sha256}"
        )
    os.environ.setdefault("KERAS_BACKEND", "openvino")
    try:
        import keras

        infer = prepare_inference(keras.saving.load_model(card.path, compile=False, safe_mode=True))
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"cannot load model {name!r} with {os.environ['KERAS_BACKEND']}: {error}") from error
    return EnhancementModel(card, infer)
