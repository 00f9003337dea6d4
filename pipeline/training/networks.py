"""The architectures of the shipped models.

What they compute is added to the input, so that what needs no change passes through. Their convolutions work at half of
the output's resolution or less, where a pixel costs a quarter. The ends are kept in float32 whatever the precision in
between, or the sum would be rounded to bfloat16.

The activations leak, hidden weights begin large (He et al., 2015) and those of the last layers small: otherwise the
networks spent their first thousands of steps on unlearning what they began with, or stayed at adding nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_SLOPE: Final = 0.1

# Where the pixels of a block of 2 x 2 lie, in the order of `keras.ops.depth_to_space`.
_PLACES: Final = ((0, 0), (0, 1), (1, 0), (1, 1))

_FILTERS: Final = 32


def build_restore() -> Any:
    """Build the network of ``restore``: from and to (N, H, W, 3), H and W multiples of 8.

    A bank of linear filters, each as large as 10 x 10 pixels, is applied everywhere, and a U-net [1]_ opens and closes
    a gate for each of them at each place: wide averages where a photograph is flat, narrow ones along its edges. That
    is the idea of LAPAR [2]_, with filters that are learnt too. A network that had to carry the noise itself through
    its layers, in order to subtract it, left a quarter of it in a blue sky.

    Every filter begins as, or near, a difference: a mean less the pixel itself. So flat areas keep their level from the
    first step on.

    Returns
    -------
    keras.Model

    References
    ----------
    .. [1] Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI
       2015.
    .. [2] Li et al., "LAPAR: Linearly-Assembled Pixel-Adaptive Regression Network for Single Image Super-Resolution
       and Beyond", NeurIPS 2020.
    """
    import keras
    from keras import layers, ops

    image = keras.Input((None, None, 3), name="image")
    # Blocks of 2 x 2 pixels as 12 channels, centred; a convolution is the cheapest way.
    pixels = layers.Conv2D(12, 2, strides=2, name="pixels")(image)
    bank = layers.Conv2D(_FILTERS, 5, padding="same", use_bias=False, kernel_initializer=_small(0.05), name="bank")
    filtered = bank(pixels)

    half = _convolve(_convolve(pixels, 16, 3, "in"), 16, 3, "enc0_0")
    quarter = _convolve(_convolve(half, 32, 2, "down0", strides=2), 32, 3, "enc1_0")
    eighth = _convolve(quarter, 64, 2, "down1", strides=2)
    for number in range(3):
        eighth = _convolve(eighth, 64, 3, f"mid_{number}")
    quarter = _ascend(eighth, quarter, 32, "1")
    for number in range(2):
        quarter = _convolve(quarter, 32, 3, f"dec1_{number}")
    half = _convolve(_ascend(quarter, half, 16, "0"), 16, 3, "dec0_0")

    gate = layers.Conv2D(_FILTERS, 1, activation="sigmoid", kernel_initializer=_small(0.3), name="gate")(half)
    gated = layers.Multiply(name="gated")([filtered, gate])
    blended = layers.Conv2D(12, 1, use_bias=False, kernel_initializer=_small(0.05), name="out")(gated)
    added = layers.Conv2D(12, 1, kernel_initializer=_small(0.0025), name="extra")(half)
    change = ops.depth_to_space(layers.Add(name="both")([blended, added]), 2)
    restored = layers.Add(dtype="float32", name="residual")([image, change])
    network = keras.Model(image, restored, name="restore")
    _begin_with_averages(network)
    return network


def build_upscale2x() -> Any:
    """Build the network of ``upscale2x``: from (N, H, W, 3) to (N, 2 H, 2 W, 3).

    Convolutions at the input's resolution, whose channels are spread to pixels (sub-pixel convolution [1]_) and added
    to the bilinear interpolation of the input. That is a convolution too, with fixed weights: Keras' own layer has the
    size of one image in its graph.

    Returns
    -------
    keras.Model

    References
    ----------
    .. [1] Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
       Neural Network", CVPR 2016.
    """
    import keras
    from keras import layers, ops

    image = keras.Input((None, None, 3), name="image")
    features = layers.Rescaling(1.0, -0.5, dtype="float32", name="centre")(image)
    for name in ("in", *(f"features_{number}" for number in range(5))):
        features = _convolve(features, 32, 3, name)
    change = layers.Conv2D(12, 3, padding="same", kernel_initializer=_small(0.01), name="out")(features)
    # In two parts, of which only the small one is a convolution: in bfloat16, that of a whole image would show.
    repeated = layers.Concatenate(dtype="float32", name="repeated")([image] * 4)
    interpolation = layers.Conv2D(
        12, 3, padding="same", use_bias=False, trainable=False, dtype="float32", name="interpolation"
    )
    whole = layers.Add(dtype="float32", name="residual")([repeated, interpolation(image), change])
    network = keras.Model(image, ops.depth_to_space(whole, 2), name="upscale2x")
    interpolation.set_weights([_bilinear_less_repeated()])
    return network


BUILDERS: Final[Mapping[str, Callable[[], Any]]] = {"restore": build_restore, "upscale2x": build_upscale2x}


def _convolve(values: Any, channels: int, size: int, name: str, strides: int = 1) -> Any:
    from keras import layers

    convolution = layers.Conv2D(
        channels, size, strides=strides, padding="same", kernel_initializer="he_normal", name=name
    )
    return layers.LeakyReLU(_SLOPE, name=f"{name}_leak")(convolution(values))


def _ascend(deep: Any, shallow: Any, channels: int, name: str) -> Any:
    """Double the resolution of `deep` and add `shallow`."""
    from keras import layers, ops

    spread = ops.depth_to_space(layers.Conv2D(4 * channels, 1, name=f"up{name}")(deep), 2)
    return layers.Add(name=f"skip{name}")([shallow, spread])


def _small(scale: float) -> Any:
    import keras

    return keras.initializers.VarianceScaling(scale, "fan_avg", "uniform")


def _begin_with_averages(network: Any) -> None:
    """Set the first weights of ``restore``.

    Of the bank's filters, twelve (one for each channel of each pixel of a block) average 3 x 3 pixels, twelve average
    10 x 10, and the others are left to chance; the gates are a quarter open.
    """
    pixels = np.zeros((2, 2, 3, 2, 2, 3), np.float32)
    near = np.zeros((5, 5, 2, 2, 3, 2, 2, 3), np.float32)
    wide = np.zeros_like(near)
    same_channel = np.eye(3, dtype=np.float32)
    for row, column in _PLACES:
        pixels[row, column, :, row, column] = same_channel
        for down in (row - 1, row, row + 1):
            for right in (column - 1, column, column + 1):
                near[2 + down // 2, 2 + right // 2, down % 2, right % 2, :, row, column] = same_channel / 9
        wide[..., row, column, :] = same_channel / 100
        for averages in (near, wide):
            averages[2, 2, row, column, :, row, column] -= same_channel
    network.get_layer("pixels").set_weights([pixels.reshape(2, 2, 3, 12), np.full(12, -0.5, np.float32)])

    (bank,) = network.get_layer("bank").get_weights()
    bank -= bank.mean(axis=(0, 1, 2))
    bank[..., :24] = np.concatenate([near.reshape(5, 5, 12, 12), wide.reshape(5, 5, 12, 12)], axis=-1)
    network.get_layer("bank").set_weights([bank])

    (out,) = network.get_layer("out").get_weights()
    out[0, 0, :24] = np.tile(np.eye(12, dtype=np.float32), (2, 1))
    network.get_layer("out").set_weights([out])

    kernel, bias = network.get_layer("gate").get_weights()
    network.get_layer("gate").set_weights([kernel, np.full_like(bias, -1.0)])


def _bilinear_less_repeated() -> NDArray[np.float32]:
    """Return the kernel, (3, 3, 3, 12), that turns repeated pixels into bilinear interpolation when it is added."""
    kernel = np.zeros((3, 3, 3, 2, 2, 3), np.float32)
    # A new pixel lies a quarter of an old one away from the old one's centre.
    weights = {0: (0.25, 0.75, 0.0), 1: (0.0, 0.75, 0.25)}
    for row, column in _PLACES:
        taps = np.outer(weights[row], weights[column])
        taps[1, 1] -= 1
        kernel[..., row, column, :] = taps[:, :, np.newaxis, np.newaxis] * np.eye(3)
    return kernel.reshape(3, 3, 3, 12)
