"""The stage that runs an enhancement model over a picture, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import EnhanceError
from pipeline.stages.picture import Picture

# Rows and columns of what the network sees at once. One fixed shape, since OpenVINO compiles for each; the batch
# bounds the memory and is otherwise free.
TILE: Final = 256
BATCH: Final = 8


class Enhancer(Protocol):
    """What this stage asks of a model; `pipeline.catalogue.EnhancementModel` is one."""

    @property
    def label(self) -> str:
        """How messages call it."""

    @property
    def halo(self) -> int:
        """Pixels on each side that an output pixel may depend on; less than half of `TILE`."""

    def predict(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enhance an array of shape (N, H, W, 3), values 0 to 1; the result has the same shape."""


def enhance_image(picture: Picture, model: Enhancer) -> Picture:
    """Run a model over a picture's colours; alpha stays as it is, and grey stays grey.

    The result is that of the network on the whole image, extended by reflection at its edges: tiles overlap by the
    model's halo, and of each only the middle is used.

    Parameters
    ----------
    picture : Picture
    model : Enhancer

    Raises
    ------
    EnhanceError
        If the model fails.
    """
    image = picture.image
    pixels = np.asarray(image.convert("RGB"))
    try:
        enhanced = Image.fromarray(enhance_pixels(pixels, model))
    except (MemoryError, RuntimeError, TypeError, ValueError) as error:
        size = f"{image.width}x{image.height}"
        raise EnhanceError(f"cannot enhance {size} pixels with {model.label}: {error}") from error
    if image.mode in {"L", "LA"}:
        enhanced = enhanced.convert("L")
    if image.mode in {"LA", "RGBA"}:
        enhanced.putalpha(image.getchannel("A"))
    return replace(picture, image=enhanced)


def enhance_pixels(pixels: NDArray[np.uint8], model: Enhancer) -> NDArray[np.uint8]:
    """Run a model over an array of any size.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (M, N, 3)
    model : Enhancer

    Returns
    -------
    ndarray of uint8, shape (M, N, 3)
    """
    rows, columns = pixels.shape[:2]
    halo = model.halo
    step = TILE - 2 * halo
    extended = np.pad(pixels, ((halo, halo + -rows % step), (halo, halo + -columns % step), (0, 0)), mode="reflect")
    enhanced = np.empty_like(pixels)
    for corners in _batches(rows, columns, step):
        tiles = np.stack([extended[top : top + TILE, left : left + TILE] for top, left in corners])
        predicted = model.predict(np.divide(tiles, 255, dtype=np.float32))
        middles = np.rint(np.clip(predicted[:, halo : halo + step, halo : halo + step], 0, 1) * 255)
        for (top, left), middle in zip(corners, middles, strict=True):
            part = enhanced[top : top + step, left : left + step]
            part[:] = middle[: part.shape[0], : part.shape[1]]
    return enhanced


def _batches(rows: int, columns: int, step: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the corners, (row, column), that tiles with a middle of `step` pixels a side have, a few at a time."""
    corners = [(top, left) for top in range(0, rows, step) for left in range(0, columns, step)]
    for start in range(0, len(corners), BATCH):
        yield corners[start : start + BATCH]
