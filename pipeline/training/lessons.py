"""What each model is to learn: the pairs of patches that it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.training.degradation import degrade, draw_degradation, draw_light_degradation, through_jpeg
from pipeline.training.photographs import MakePair

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]

# Rows and columns that a patch has more than what is learnt from: there, blur and JPEG's blocks know no edge, and the
# 8 x 8 grid of JPEG falls anywhere.
MARGIN: Final = 16

_KERNELS: Final = (
    Image.Resampling.LANCZOS,
    Image.Resampling.LANCZOS,
    Image.Resampling.BICUBIC,
    Image.Resampling.BOX,
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """How one model is taught.

    Attributes
    ----------
    scale : int
        Pixels of output a side for each pixel of input.
    clean_size : int
        Rows and columns of a clean patch.
    make_pair : callable
        Makes what the network gets, and what it should make of it, of a clean patch.
    least_damage : float
        Mean squared error, values 0 to 1: a patch with less damage than that counts as if it had so much. Otherwise
        those that are to stay as they are would count for everything.
    """

    scale: int
    clean_size: int
    make_pair: MakePair
    least_damage: float


def make_restore_pair(clean: NDArray[np.uint8], rng: np.random.Generator) -> Pair:
    """Damage a patch; one in eight is to come out as it went in.

    Seven of eight are damaged as `pipeline.training.degradation.draw_degradation` says. The eighth has at most JPEG
    of quality 90 to 99, and is its own target: a clean photograph is to be left alone.

    Parameters
    ----------
    clean : ndarray of uint8, shape (M, M, 3)
    rng : numpy.random.Generator

    Returns
    -------
    tuple of ndarray of uint8, shape (M - 16, M - 16, 3)
    """
    if rng.random() < 1 / 8:
        given = clean
        if rng.random() < 0.8:
            given = through_jpeg(clean, int(rng.integers(90, 100)), subsampling=2 * int(rng.integers(2)))
        wanted = given
    else:
        given, wanted = degrade(clean, draw_degradation(rng), rng), clean
    return _cut(given, wanted, rng, scale=1)


def make_upscale_pair(clean: NDArray[np.uint8], rng: np.random.Generator) -> Pair:
    """Halve a patch; one in four is then damaged a little.

    Halved by Lanczos (one of two), bicubic or box averaging, as Pillow defines them; the damage is that of
    `pipeline.training.degradation.draw_light_degradation`.

    Parameters
    ----------
    clean : ndarray of uint8, shape (M, M, 3)
    rng : numpy.random.Generator

    Returns
    -------
    tuple of ndarray of uint8
        Of shapes (M / 2 - 16, M / 2 - 16, 3) and (M - 32, M - 32, 3).
    """
    side = clean.shape[0] // 2
    kernel = _KERNELS[int(rng.integers(len(_KERNELS)))]
    given = np.asarray(Image.fromarray(clean).resize((side, side), kernel))
    if rng.random() < 1 / 4:
        given = degrade(given, draw_light_degradation(rng), rng)
    return _cut(given, clean, rng, scale=2)


LESSONS: Final[Mapping[str, Lesson]] = {
    "restore": Lesson(1, 96 + MARGIN, make_restore_pair, least_damage=3e-4),
    "upscale2x": Lesson(2, 2 * (48 + MARGIN), make_upscale_pair, least_damage=1e-4),
}


def _cut(given: NDArray[np.uint8], wanted: NDArray[np.uint8], rng: np.random.Generator, scale: int) -> Pair:
    size = given.shape[0] - MARGIN
    row, column = rng.integers(MARGIN + 1, size=2)
    return given[row : row + size, column : column + size], wanted[
        scale * row : scale * (row + size), scale * column : scale * (column + size)
    ]
