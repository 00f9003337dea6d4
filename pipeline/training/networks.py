"""The architectures of the shipped models.

Both are plain residual networks: what they compute is added to the input, so that what needs no change passes through.
Their convolutions work at half of the output's resolution or less, where a pixel costs a quarter. The ends are kept
in float32 whatever the precision in between, or the sum would be rounded to bfloat16.

The activations leak and the weights begin large (He et al., 2015): with plain rectifiers or Glorot's weights, the
networks soon learnt to add nothing, and stayed there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

_SLOPE: Final = 0.1


def build_restore() -> Any:
    """Build the network of ``restore``: from and to (N, H, W, 3), H and W even.

    Convolutions at half resolution, whose channels are spread to pixels (sub-pixel convolution, [1]_) rather than by
    a transposed convolution, which takes several times as long.

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
    centred = layers.Rescaling(1.0, -0.5, dtype="float32", name="centre")(image)
    features = _convolve(centred, 32, 4, "in", strides=2)
    for number in range(3):
        features = _convolve(features, 32, 3, f"features_{number}")
    change = layers.Conv2D(3 * 4, 3, padding="same", name="out")(features)
    restored = layers.Add(dtype="float32", name="residual")([image, ops.depth_to_space(change, 2)])
    return keras.Model(image, restored, name="restore")


def build_upscale2x() -> Any:
    """Build the network of ``upscale2x``: from (N, H, W, 3) to (N, 2 H, 2 W, 3).

    Convolutions at the input's resolution, whose channels are spread to pixels, added to the repeated input [1]_.

    Returns
    -------
    keras.Model

    References
    ----------
    .. [1] Du et al., "Anchor-based Plain Net for Mobile Image Super-Resolution", CVPR Workshops 2021.
    """
    import keras
    from keras import layers, ops

    image = keras.Input((None, None, 3), name="image")
    centred = layers.Rescaling(1.0, -0.5, dtype="float32", name="centre")(image)
    features = _convolve(centred, 32, 3, "in")
    for number in range(4):
        features = _convolve(features, 32, 3, f"features_{number}")
    change = layers.Conv2D(3 * 4, 3, padding="same", name="out")(features)
    repeated = layers.Concatenate(dtype="float32", name="anchor")([image] * 4)
    upscaled = ops.depth_to_space(layers.Add(dtype="float32", name="residual")([repeated, change]), 2)
    return keras.Model(image, upscaled, name="upscale2x")


BUILDERS: Final[Mapping[str, Callable[[], Any]]] = {"restore": build_restore, "upscale2x": build_upscale2x}


def _convolve(values: Any, channels: int, size: int, name: str, strides: int = 1) -> Any:
    from keras import layers

    convolution = layers.Conv2D(
        channels, size, strides=strides, padding="same", kernel_initializer="he_normal", name=name
    )
    return layers.LeakyReLU(_SLOPE, name=f"{name}_leak")(convolution(values))
