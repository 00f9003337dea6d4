"""Judge a model on photographs that it was not trained on, beside the filters that it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from pipeline.stages.enhance import Enhancer, enhance_pixels
from pipeline.training.classical import FILTERS, UPSCALERS
from pipeline.training.degradation import Degradation, degrade
from pipeline.training.photographs import read_photograph, shrink

Pixels = NDArray[np.uint8]

# Larger photographs are judged by their middle: the classical filters take seconds a megapixel.
MAX_SIDE: Final = 384

INPUT: Final = "input"


@dataclass(frozen=True, slots=True)
class Level:
    """One kind of damage at one strength.

    Attributes
    ----------
    kind : str
        Such as ``noise``; ``mixed`` is what the model's figures are about.
    strength : str
        In words, for the table.
    degradation : Degradation
    """

    kind: str
    strength: str
    degradation: Degradation


RESTORE_LEVELS: Final = (
    Level("mixed", "light: blur 0, noise 5, JPEG 90", Degradation(0.0, noise_sigma=5, jpeg_quality=90)),
    Level("mixed", "medium: blur 0.5, noise 12, JPEG 65", Degradation(0.5, noise_sigma=12, jpeg_quality=65)),
    Level("mixed", "heavy: blur 1, noise 20, JPEG 40", Degradation(1.0, noise_sigma=20, jpeg_quality=40)),
    Level("noise", "sigma 5", Degradation(noise_sigma=5)),
    Level("noise", "sigma 10", Degradation(noise_sigma=10)),
    Level("noise", "sigma 20", Degradation(noise_sigma=20)),
    Level("JPEG", "quality 75", Degradation(jpeg_quality=75)),
    Level("JPEG", "quality 50", Degradation(jpeg_quality=50)),
    Level("JPEG", "quality 30", Degradation(jpeg_quality=30)),
    Level("blur", "sigma 0.7", Degradation(0.7)),
    Level("blur", "sigma 1", Degradation(1.0)),
    Level("clean", "JPEG 95", Degradation(jpeg_quality=95)),
)

UPSCALE_LEVELS: Final = (
    Level("clean", "halved", Degradation()),
    Level("JPEG", "halved, JPEG 90", Degradation(jpeg_quality=90)),
    Level("JPEG", "halved, JPEG 70", Degradation(jpeg_quality=70)),
)


@dataclass(frozen=True, slots=True)
class Crop:
    """A piece of a photograph, for looking: the damaged one, what the model made of it, and the truth."""

    photograph: str
    level: Level
    before: Pixels
    after: Pixels
    truth: Pixels


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of a model.

    Attributes
    ----------
    table : pandas.DataFrame
        A row for each photograph, damage, method and value of the method's parameter: ``photograph kind strength
        method parameter psnr_db ssim sharpness``. PSNR and SSIM are against the truth; for ``clean`` of a model that
        keeps the size, against the input, which is to come out as it went in.
    crops : tuple of Crop
    """

    table: pd.DataFrame
    crops: tuple[Crop, ...]

    def summary(self) -> pd.DataFrame:
        """Mean over the photographs: a row for each damage and method, with the best value of its parameter."""
        by = ["kind", "strength", "method", "parameter"]
        means = self.table.groupby(by, sort=False)[["psnr_db", "ssim", "sharpness"]].mean().reset_index()
        best = means.groupby(by[:3], sort=False)["psnr_db"].idxmax()
        return means.loc[best].reset_index(drop=True)

    def gain_db(self, kind: str, over: Sequence[str] = (INPUT,)) -> float:
        """Mean PSNR of the model less that of the best of some methods for each strength of a kind of damage."""
        psnr = self.summary().pivot_table(index=["kind", "strength"], columns="method", values="psnr_db").loc[kind]
        return float((psnr["model"] - psnr[list(over)].T.max()).mean())


def evaluate(
    model: Enhancer,
    paths: Sequence[Path],
    on_photograph: Callable[[int, int], None] = lambda done, total: None,
    *,
    with_filters: bool = True,
    seed: int = 0,
) -> Evaluation:
    """Measure a model.

    The photographs are taken as they are, cut to their middle of at most 384 pixels a side. One whose shorter side is
    at least twice that is halved before, which rids it of its own noise and JPEG artefacts.

    Parameters
    ----------
    model : Enhancer
    paths : sequence of Path
    on_photograph : callable
        Told how many are done, and of how many.
    with_filters : bool
        Whether the classical filters are measured too, which takes most of the time.
    seed : int
        Of the noise.

    Raises
    ------
    SourceError
        If a photograph cannot be read.
    """
    rows: list[dict[str, Any]] = []
    crops: list[Crop] = []
    for number, path in enumerate(paths):
        truth = _truth(path)
        for level in RESTORE_LEVELS if model.scale == 1 else UPSCALE_LEVELS:
            rng = np.random.default_rng([seed, number])
            before = degrade(_halved(truth) if model.scale == 2 else truth, level.degradation, rng)
            # A clean photograph is to be left alone, so its own JPEG artefacts are none of the model's business.
            wanted = before if level.kind == "clean" and model.scale == 1 else truth
            for method, parameter, after in _results(model, before, with_filters):
                scores = measure(wanted, after) if after is not before or wanted is not before else _IDENTICAL
                rows.append(
                    {"photograph": path.name, "kind": level.kind, "strength": level.strength}
                    | {"method": method, "parameter": parameter, **scores, "sharpness": measure_sharpness(after)}
                )
                if method == "model":
                    crops.append(Crop(path.name, level, before, after, truth))
        on_photograph(number + 1, len(paths))
    return Evaluation(pd.DataFrame(rows), tuple(crops))


_IDENTICAL: Final[Mapping[str, float]] = {"psnr_db": float("inf"), "ssim": 1.0}


def measure(truth: Pixels, pixels: Pixels) -> dict[str, float]:
    """Compare with the truth: scikit-image's PSNR over all three channels, in dB, and mean SSIM of the channels.

    Parameters
    ----------
    truth, pixels : ndarray of uint8, shape (M, N, 3)
    """
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    return {
        "psnr_db": float(peak_signal_noise_ratio(truth, pixels, data_range=255)),
        "ssim": float(structural_similarity(truth, pixels, channel_axis=2, data_range=255)),
    }


def measure_sharpness(pixels: Pixels) -> float:
    """Judge sharpness without a reference: 1 less the blur metric of Crete et al. [1]_, as scikit-image has it.

    Noise looks sharp to it, so it says something only beside PSNR.

    References
    ----------
    .. [1] Crete, Dolmiere, Ladret and Nicolas, "The blur effect: perception and estimation with a new no-reference
       perceptual blur metric", SPIE 6492, 2007.
    """
    from skimage.measure import blur_effect

    return 1 - float(blur_effect(pixels, channel_axis=2))


def _results(model: Enhancer, before: Pixels, with_filters: bool) -> Iterator[tuple[str, float, Pixels]]:
    """Yield method, value of its parameter, and what it makes of the damaged photograph."""
    if model.scale == 1:
        yield INPUT, 0.0, before
        for name, candidate in FILTERS.items() if with_filters else ():
            for value in candidate.values:
                yield name, value, candidate.apply(before, value)
    else:
        for name, upscale in UPSCALERS.items():
            yield name, 0.0, upscale(before)
    yield "model", 0.0, enhance_pixels(before, model)


def _truth(path: Path) -> Pixels:
    image = read_photograph(path)
    pixels = shrink(image, 0.5) if min(image.size) >= 2 * MAX_SIDE else np.asarray(image)
    # Even sides, for those that are halved again.
    size = tuple(min(MAX_SIDE, side // 2 * 2) for side in pixels.shape[:2])
    row, column = ((side - kept) // 2 for side, kept in zip(pixels.shape[:2], size, strict=True))
    return np.ascontiguousarray(pixels[row : row + size[0], column : column + size[1]])


def _halved(pixels: Pixels) -> Pixels:
    return np.asarray(
        Image.fromarray(pixels).resize((pixels.shape[1] // 2, pixels.shape[0] // 2), Image.Resampling.LANCZOS)
    )
