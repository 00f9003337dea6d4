"""What cameras, downscaling and JPEG do to a photograph, drawn at random: the damage that the models learn to undo.

Everything happens on sRGB values as they are stored, not on linear light, since that is what the models see.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

# Pillow's numbers for JPEG with colours at full and at half resolution.
_JPEG_444: Final = 0
_JPEG_420: Final = 2


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way of damaging a photograph; the steps happen in the order of the fields.

    Attributes
    ----------
    blur_sigma : float
        Of a Gaussian blur, in pixels.
    photons : float
        Photons that a pixel of full brightness counts, for Poisson noise; infinite for none.
    noise_sigma : float
        Standard deviation of Gaussian noise, in levels of 255, independent for each pixel and channel.
    jpeg_quality : int or None
        Pillow's, 1 to 95 and 100; None for no JPEG.
    jpeg_subsampling : int
        0 keeps the colours' resolution (4:4:4), 2 halves it (4:2:0).
    """

    blur_sigma: float = 0.0
    photons: float = float("inf")
    noise_sigma: float = 0.0
    jpeg_quality: int | None = None
    jpeg_subsampling: int = _JPEG_420


def degrade(pixels: NDArray[np.uint8], degradation: Degradation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Damage a photograph.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (M, N, 3)
        sRGB.
    degradation : Degradation
    rng : numpy.random.Generator
        For the noise.

    Returns
    -------
    ndarray of uint8, shape (M, N, 3)
    """
    values = pixels.astype(np.float32)
    if degradation.blur_sigma > 0:
        values = gaussian_filter(values, (degradation.blur_sigma, degradation.blur_sigma, 0), truncate=3)
    if np.isfinite(degradation.photons):
        # A count of n photons varies by sqrt(n); a Gaussian of that width is as good from a dozen photons on.
        spread = np.sqrt(np.maximum(values, 0) * np.float32(255 / degradation.photons))
        values += spread * rng.standard_normal(values.shape, np.float32)
    if degradation.noise_sigma > 0:
        values += np.float32(degradation.noise_sigma) * rng.standard_normal(values.shape, np.float32)
    degraded = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    if degradation.jpeg_quality is None:
        return degraded
    return through_jpeg(degraded, degradation.jpeg_quality, degradation.jpeg_subsampling)


def through_jpeg(pixels: NDArray[np.uint8], quality: int, subsampling: int = _JPEG_420) -> NDArray[np.uint8]:
    """Encode as JPEG and decode again.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (M, N, 3)
    quality, subsampling : int
        As in `Degradation`.
    """
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
        return np.asarray(Image.open(file))


def draw_degradation(rng: np.random.Generator) -> Degradation:
    """Draw the damage that `restore` is trained on.

    ==================  ==================================================================================
    step                range
    ==================  ==================================================================================
    blur                sigma uniform in 0 to 1.2 pixels
    Poisson noise       for one photograph in four, 255 to 4000 photons, log-uniform
    Gaussian noise      for seven in eight: sigma uniform in 0 to 23 levels of 255
    JPEG                for seven in eight: quality uniform in 35 to 95; 4:2:0 for three of four, else 4:4:4
    ==================  ==================================================================================

    Parameters
    ----------
    rng : numpy.random.Generator
    """
    return Degradation(
        blur_sigma=float(rng.uniform(0, 1.2)),
        photons=float(np.exp(rng.uniform(np.log(255), np.log(4000)))) if rng.random() < 0.25 else float("inf"),
        noise_sigma=float(rng.uniform(0, 23)) if rng.random() < 7 / 8 else 0.0,
        jpeg_quality=int(rng.integers(35, 96)) if rng.random() < 7 / 8 else None,
        jpeg_subsampling=_JPEG_420 if rng.random() < 0.75 else _JPEG_444,
    )


def draw_light_degradation(rng: np.random.Generator) -> Degradation:
    """Draw the damage that `upscale2x` meets in a quarter of its training: small pictures as the web has them.

    Gaussian noise of sigma 0 to 4 levels of 255, then JPEG of quality 60 to 95, 4:2:0 for one of two.

    Parameters
    ----------
    rng : numpy.random.Generator
    """
    return Degradation(
        noise_sigma=float(rng.uniform(0, 4)),
        jpeg_quality=int(rng.integers(60, 96)),
        jpeg_subsampling=_JPEG_420 if rng.random() < 0.5 else _JPEG_444,
    )
