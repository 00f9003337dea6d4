"""Photographs to learn from: a split by photograph, clean versions, and patches of them in pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import SourceError

# A photograph is learnt from at these scales. Halved or less, it has neither noise nor JPEG artefacts of its own, and
# is as sharp at the pixel as what the resize stage makes. As it is, it has the grain of a camera, which is no damage:
# without it, the model took every grain for noise.
SCALES: Final = (1.0, 0.5, 0.35, 0.25)

_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})

# Each degraded pair is used about four times, turned and mirrored: making one costs as much as learning from it.
_USES: Final = 4
_POOL_PAIRS: Final = 1600

# Makes of a clean patch what the network gets and what it should make of it.
MakePair = Callable[[NDArray[np.uint8], np.random.Generator], tuple[NDArray[np.uint8], NDArray[np.uint8]]]


@dataclass(frozen=True, slots=True)
class Split:
    """Which photographs are learnt from, and which only judge."""

    training: tuple[Path, ...]
    validation: tuple[Path, ...]


def find_photographs(folder: Path) -> list[Path]:
    """List the photographs of a folder and of those below it, by name.

    Raises
    ------
    SourceError
        If there are none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise SourceError(f"no photographs in {str(folder)!r}; what counts ends in {', '.join(sorted(_SUFFIXES))}")
    return found


def split_photographs(paths: Sequence[Path], share: float, seed: int) -> Split:
    """Set photographs aside for validation, by chance: whole ones, so that no patch of them is learnt from.

    Parameters
    ----------
    paths : sequence of Path
        At least two.
    share : float
        Of the photographs, 0 to 1; at least one is set aside and one is left.
    seed : int

    Raises
    ------
    SourceError
        If there are fewer than two.
    """
    if len(paths) < 2:
        raise SourceError(f"{len(paths)} photograph is too few: one at least is learnt from and another one judges")
    count = min(len(paths) - 1, max(1, round(share * len(paths))))
    chosen = set(np.random.default_rng(seed).choice(len(paths), count, replace=False).tolist())
    return Split(
        training=tuple(path for number, path in enumerate(paths) if number not in chosen),
        validation=tuple(path for number, path in enumerate(paths) if number in chosen),
    )


def read_photograph(path: Path) -> Image.Image:
    """Open a photograph as RGB.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise SourceError(f"cannot read the photograph {str(path)!r}: {error}") from error


def shrink(image: Image.Image, scale: float) -> NDArray[np.uint8]:
    """Scale a photograph down (Lanczos), as uint8 of shape (M, N, 3)."""
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3))


def clean_versions(path: Path, least_side: int) -> list[NDArray[np.uint8]]:
    """Read a photograph and scale it down to each of `SCALES`, as far as it stays at least `least_side` pixels."""
    image = read_photograph(path)
    versions = [shrink(image, scale) for scale in SCALES]
    return [version for version in versions if min(version.shape[:2]) >= least_side]


def draw_patch(pixels: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Cut a square at random, every other time of three the one with most detail; turn and mirror it at random.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (M, N, 3)
        M and N at least `size`.
    size : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
    """
    patches = []
    for _ in range(1 + 2 * int(rng.integers(2))):
        row = int(rng.integers(pixels.shape[0] - size + 1))
        column = int(rng.integers(pixels.shape[1] - size + 1))
        patches.append(pixels[row : row + size, column : column + size])
    patch = np.rot90(max(patches, key=_detail), int(rng.integers(4)))
    return np.ascontiguousarray(patch[:, ::-1] if rng.random() < 0.5 else patch)


def batches(
    versions: Sequence[NDArray[np.uint8]], size: int, batch_size: int, make_pair: MakePair, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield batches of pairs without end.

    Parameters
    ----------
    versions : sequence of ndarray of uint8, shape (M, N, 3)
        A large one is drawn more often than a small one, by the root of its pixels.
    size : int
        Rows and columns of a clean patch.
    batch_size : int
        A multiple of four.
    make_pair : callable
    rng : numpy.random.Generator

    Yields
    ------
    tuple of ndarray of float32
        What the network gets and what it should make of it, values 0 to 1.
    """
    weights = np.sqrt([version.size for version in versions])
    weights /= weights.sum()
    pool: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
    while True:
        for _ in range(batch_size // _USES):
            version = versions[rng.choice(len(versions), p=weights)]
            pool.append(make_pair(draw_patch(version, size, rng), rng))
        del pool[:-_POOL_PAIRS]
        drawn = [_mirrored(pool[number], rng) for number in rng.integers(len(pool), size=batch_size)]
        given, wanted = (np.stack(side).astype(np.float32) / np.float32(255) for side in zip(*drawn, strict=True))
        yield given, wanted


def _detail(patch: NDArray[np.uint8]) -> float:
    green = patch[:, :, 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())


def _mirrored(
    pair: tuple[NDArray[np.uint8], NDArray[np.uint8]], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    given, wanted = pair
    if rng.random() < 0.5:
        given, wanted = given[::-1], wanted[::-1]
    if rng.random() < 0.5:
        given, wanted = given.transpose(1, 0, 2), wanted.transpose(1, 0, 2)
    return given, wanted
