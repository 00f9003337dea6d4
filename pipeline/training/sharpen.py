"""The network of the model ``sharpen``, and how its file is made: ``python -m pipeline.training.sharpen``."""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.catalogue.cards import WEIGHTS
from pipeline.training.network_file import write_network

SIGMA: Final = 1.0
AMOUNT: Final = 0.6
RADIUS: Final = 3


def sharpening_kernel() -> NDArray[np.float32]:
    """Make the kernel of an unsharp mask.

    It is ``(1 + a) * d - a * g``, where ``g`` is a Gaussian that sums to 1, ``d`` is 1 in the middle and else 0, and
    ``a`` the amount: the image plus `AMOUNT` times what a blur would take from it.

    Returns
    -------
    ndarray of float32, shape (7, 7)
        Sums to 1, so that flat areas keep their level.
    """
    offsets = np.arange(-RADIUS, RADIUS + 1)
    profile = np.exp(-(offsets**2) / (2 * SIGMA**2))
    gaussian = np.outer(profile, profile) / profile.sum() ** 2
    kernel = -AMOUNT * gaussian
    kernel[RADIUS, RADIUS] += 1 + AMOUNT
    return np.asarray(kernel, dtype=np.float32)


def build_network() -> Any:
    """Build the network: the kernel on each channel (a depthwise convolution), then a clip to 0 to 1."""
    os.environ.setdefault("KERAS_BACKEND", "openvino")
    import keras

    image = keras.Input((None, None, 3), name="image")
    size = 2 * RADIUS + 1
    convolution = keras.layers.DepthwiseConv2D(size, padding="same", use_bias=False, name="unsharp_mask")
    clipped = keras.layers.ReLU(max_value=1.0, name="clip")(convolution(image))
    convolution.set_weights([np.repeat(sharpening_kernel()[:, :, np.newaxis, np.newaxis], 3, axis=2)])
    return keras.Model(image, clipped, name="sharpen")


if __name__ == "__main__":
    write_network(build_network(), WEIGHTS / "sharpen.keras")
