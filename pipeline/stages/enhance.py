"""The stage that runs an enhancement model over a picture, tile by tile."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import EnhanceError
from pipeline.stages.picture import Picture
from pipeline.stages.resize import place_image, scale_image

# The most rows and columns of what a tile adds to the result: larger ones cost memory and are no faster.
MAX_STEP: Final = 1024
# Tiles add a multiple of this, so that collections of many sizes have tiles of few, and strided networks see each tile
# in the same phase.
STEP_MULTIPLE: Final = 32
# Pixels by which an image is extended at its edges, by reflection: a network takes what is beyond for grey.
MAX_MARGIN: Final = 16


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
        """Pixels of input on each side that an output pixel may depend on; a multiple of the network's stride.

        The stride divides `MAX_MARGIN`.
        """

    def predict(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enhance (N, H, W, 3), values 0 to 1; the result is (N, scale * H, scale * W, 3)."""


@dataclass(frozen=True, slots=True)
class Span:
    """What one tile covers along one axis, in pixels of the image.

    Attributes
    ----------
    start, stop : int
        What the tile adds to the result; the last tile's may end beyond the image.
    first, last : int
        What the network sees: more on both sides, which only informs the result. Negative values and those beyond the
        image are pixels of its extension.
    """

    start: int
    stop: int
    first: int
    last: int


def plan_tiles(length: int, halo: int, max_step: int = MAX_STEP) -> list[Span]:
    """Cut an axis into as few and as equal tiles as its length allows.

    Between tiles, each sees the whole halo; at the image's edges, an extension of at most `MAX_MARGIN` pixels.

    Parameters
    ----------
    length : int
        Pixels, at least 1.
    halo : int
        Pixels on each side that a pixel of the result may depend on.
    max_step : int
        The most that a tile adds to the result; a multiple of `STEP_MULTIPLE`.
    """
    count = -(-length // max_step)
    step = -(-length // (count * STEP_MULTIPLE)) * STEP_MULTIPLE
    end = -(-length // STEP_MULTIPLE) * STEP_MULTIPLE
    margin = min(halo, MAX_MARGIN)
    return [
        Span(start, stop, max(start - halo, -margin), min(stop + halo, end + margin))
        for start in range(0, end, step)
        for stop in [min(start + step, end)]
    ]


def enhance_image(picture: Picture, model: Enhancer, strength: float = 1.0) -> Picture:
    """Run a model over a picture's colours; alpha keeps its values, and grey stays grey.

    The result is that of the network on the whole image, extended by reflection at its edges: what tiles see overlaps
    by the model's halo. A model that doubles the size is run only on a picture that still has to grow, and what it
    makes is then scaled to exactly the size that the picture's `placement` asks for.

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
    except (RuntimeError, TypeError, ValueError) as error:
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
    # The memory of a tile is that of its result.
    rows, columns = (plan_tiles(length, model.halo, MAX_STEP // scale) for length in pixels.shape[:2])
    enhanced = np.empty((scale * pixels.shape[0], scale * pixels.shape[1], 3), np.uint8)
    for row, column in itertools.product(rows, columns):
        tile = np.multiply(_extract(pixels, row, column), np.float32(1 / 255), dtype=np.float32)
        values = model.predict(tile[np.newaxis])[0]
        part = enhanced[scale * row.start : scale * row.stop, scale * column.start : scale * column.stop]
        top, left = scale * (row.start - row.first), scale * (column.start - column.first)
        levels = values[top : top + part.shape[0], left : left + part.shape[1]] * np.float32(255)
        np.rint(np.clip(levels, 0, 255, out=levels), out=part, casting="unsafe")
    return enhanced


def _extract(pixels: NDArray[np.uint8], row: Span, column: Span) -> NDArray[np.uint8]:
    """Cut out what a tile sees, and extend it where that is beyond the image."""
    seen = pixels[max(row.first, 0) : row.last, max(column.first, 0) : column.last]
    missing = [
        (max(-span.first, 0), max(span.last - length, 0))
        for span, length in zip((row, column), pixels.shape, strict=False)
    ]
    return np.pad(seen, (*missing, (0, 0)), mode="reflect")
