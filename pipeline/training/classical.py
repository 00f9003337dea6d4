"""What a model has to beat: filters that need no training, from scikit-image, each with a range of its parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and the values of its parameter that are tried; the best one for each damage counts.

    Attributes
    ----------
    parameter : str
        Its name, with the unit if it has one.
    values : tuple of float
    apply : callable
        From and to uint8 of shape (M, N, 3), given a value.
    """

    parameter: str
    values: tuple[float, ...]
    apply: Callable[[Pixels, float], Pixels]


def unsharp_mask(pixels: Pixels, amount: float) -> Pixels:
    """Sharpen with `skimage.filters.unsharp_mask`, radius 1 pixel."""
    from skimage.filters import unsharp_mask as sharpen

    return _to_uint8(sharpen(pixels, radius=1, amount=amount, channel_axis=2))


def bilateral(pixels: Pixels, sigma_color: float) -> Pixels:
    """Smooth with `skimage.restoration.denoise_bilateral`, sigma 1.5 pixels; `sigma_color` in levels of 255."""
    from skimage.restoration import denoise_bilateral

    return _to_uint8(denoise_bilateral(pixels, sigma_color=sigma_color / 255, sigma_spatial=1.5, channel_axis=2))


def non_local_means(pixels: Pixels, h: float) -> Pixels:
    """Smooth with `skimage.restoration.denoise_nl_means`, patches of 5 in a window of 13; `h` in levels of 255."""
    from skimage.restoration import denoise_nl_means

    smoothed = denoise_nl_means(
        pixels.astype(np.float32) / 255, h=h / 255, patch_size=5, patch_distance=6, fast_mode=True, channel_axis=2
    )
    return _to_uint8(smoothed)


FILTERS: Final[Mapping[str, Filter]] = {
    "unsharp mask": Filter("amount", (0.15, 0.3, 0.6, 1.0), unsharp_mask),
    "bilateral": Filter("sigma_color", (5, 10, 15, 25, 40), bilateral),
    "non-local means": Filter("h", (2, 4, 6, 9, 13), non_local_means),
}


def lanczos(pixels: Pixels) -> Pixels:
    """Double the size with Pillow's Lanczos filter."""
    return _double(pixels, Image.Resampling.LANCZOS)


def bicubic(pixels: Pixels) -> Pixels:
    """Double the size with Pillow's bicubic filter."""
    return _double(pixels, Image.Resampling.BICUBIC)


UPSCALERS: Final[Mapping[str, Callable[[Pixels], Pixels]]] = {"Lanczos": lanczos, "bicubic": bicubic}


def _double(pixels: Pixels, kernel: Image.Resampling) -> Pixels:
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((2 * image.width, 2 * image.height), kernel))


def _to_uint8(values: NDArray[np.floating]) -> Pixels:
    levels: Pixels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return levels
