"""The stage that runs an enhancement model over a picture, tile by tile."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import EnhanceError
from pipeline.stages.picture import Picture
from pipeline.stages.resize import place_image, scale_image

# The most rows and columns of a tile's middle: larger ones bound the memory no better and are no faster.
MAX_STEP: Final = 512
# Middles are a multiple of this, so that collections of many sizes have tiles of few, and strided networks see each
# tile in the same phase.
STEP_MULTIPLE: Final = 32


class Enhancer(Protocol):
    """What this stage asks of a model; `pipeline.catalogue.EnhancementModel` is one."""

    @property
    def label(self) -> str:
        """How messages call it."""

    @property
    def scale(self) -> int:
        """Pixels of output a side for each pixel of input."""

    @property
    def halo(self) -> int:
        """Pixels of input on each side that an output pixel may depend on; a multiple of the network's stride."""

    def predict(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enhance (N, H, W, 3), values 0 to 1; the result is (N, scale * H, scale * W, 3)."""


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How one axis of an image is cut into tiles of one size.

    Attributes
    ----------
    count : int
        Tiles along the axis.
    step : int
        Pixels of each tile's middle, which is used; a multiple of `STEP_MULTIPLE`.
    halo : int
        Pixels before and after the middle, which only inform it.
    """

    count: int
    step: int
    halo: int

    @property
    def size(self) -> int:
        """Pixels of a tile."""
        return self.step + 2 * self.halo

    @property
    def starts(self) -> range:
        """Where the middles begin; the last one may reach beyond the image."""
        return range(0, self.count * self.step, self.step)


def plan_tiles(length: int, halo: int) -> TilePlan:
    """Cut an axis into as few and as equal tiles as its length allows.

    Parameters
    ----------
    length : int
        Pixels, at least 1.
    halo : int
        Pixels that tiles overlap on each side.
    """
    count = -(-length // MAX_STEP)
    step = -(-length // (count * STEP_MULTIPLE)) * STEP_MULTIPLE
    return TilePlan(count, step, halo)


def enhance_image(picture: Picture, model: Enhancer, strength: float = 1.0) -> Picture:
    """Run a model over a picture's colours; alpha keeps its values, and grey stays grey.

    The result is that of the network on the whole image, extended by reflection at its edges: tiles overlap by the
    model's halo, and of each only the middle is used. A model that doubles the size is run only on a picture that
    still has to grow, and what it makes is then scaled to exactly the size that the picture's `placement` asks for.

    Parameters
    ----------
    picture : Picture
    model : Enhancer
    strength : float
        0 to 1: how much of the model's result is blended with what there would be without it: the picture as it is, or
        enlarged with a Lanczos filter.

    Raises
    ------
    EnhanceError
        If the model fails.
    """
    image = picture.image
    if model.scale > 1 and not picture.placement:
        return picture
    try:
        enhanced = Image.fromarray(enhance_pixels(np.asarray(image.convert("RGB")), model))
    except (MemoryError, RuntimeError, TypeError, ValueError) as error:
        size = f"{image.width}x{image.height}"
        raise EnhanceError(f"cannot enhance {size} pixels with {model.label}: {error}") from error
    plain = scale_image(image, enhanced.size)
    if strength < 1:
        enhanced = Image.blend(plain.convert("RGB"), enhanced, strength)
    if image.mode in {"L", "LA"}:
        enhanced = enhanced.convert("L")
    if image.mode in {"LA", "RGBA"}:
        enhanced.putalpha(plain.getchannel("A"))
    if picture.placement:
        enhanced = place_image(enhanced, picture.placement)
    return replace(picture, image=enhanced, placement=None)


def enhance_pixels(pixels: NDArray[np.uint8], model: Enhancer) -> NDArray[np.uint8]:
    """Run a model over an array of any size.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (M, N, 3)
    model : Enhancer

    Returns
    -------
    ndarray of uint8, shape (scale * M, scale * N, 3)
    """
    scale = model.scale
    rows, columns = (plan_tiles(length, model.halo) for length in pixels.shape[:2])
    enhanced = np.empty((scale * pixels.shape[0], scale * pixels.shape[1], 3), np.uint8)
    inner = np.s_[
        scale * rows.halo : scale * (rows.halo + rows.step),
        scale * columns.halo : scale * (columns.halo + columns.step),
    ]
    for row, column, tile in _tiles(pixels, rows, columns):
        values = model.predict(np.multiply(tile, np.float32(1 / 255), dtype=np.float32)[np.newaxis])[0][inner]
        part = enhanced[scale * row : scale * (row + rows.step), scale * column : scale * (column + columns.step)]
        levels = values[: part.shape[0], : part.shape[1]] * np.float32(255)
        np.rint(np.clip(levels, 0, 255, out=levels), out=part, casting="unsafe")
    return enhanced


def _tiles(
    pixels: NDArray[np.uint8], rows: TilePlan, columns: TilePlan
) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Yield where the middle of each tile begins, and the tile."""
    row_numbers, column_numbers = (
        _reflected(length, plan) for length, plan in zip(pixels.shape, (rows, columns), strict=False)
    )
    for row, column in itertools.product(rows.starts, columns.starts):
        # Rows first: they lie together in memory, so that only a band of the image is copied.
        band = pixels[row_numbers[row : row + rows.size]]
        yield row, column, band[:, column_numbers[column : column + columns.size]]


def _reflected(length: int, plan: TilePlan) -> NDArray[np.intp]:
    """Return the pixels of an axis extended by reflection, `halo` before it and up to the last tile's end."""
    after = plan.count * plan.step - length + plan.halo
    return np.pad(np.arange(length), (plan.halo, after), mode="reflect")
