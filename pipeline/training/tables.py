"""Evaluations as people read them: tables, and crops before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from pipeline.catalogue import ModelCard
from pipeline.errors import DestinationError
from pipeline.training.evaluation import Crop, Evaluation

# Rows and columns of a crop, and how many times larger it is shown.
_CROP: Final = 96
_ZOOM: Final = 2

_GAP: Final = 8
_CAPTION: Final = 22


def write_evaluation(evaluation: Evaluation, card: ModelCard, out: Path) -> Path:
    """Write an evaluation into a folder: ``evaluation.md``, ``evaluation.csv`` and a picture for each photograph.

    Returns
    -------
    Path
        The Markdown file, which shows everything.

    Raises
    ------
    DestinationError
        If the folder cannot be written to.
    """
    report = out / "evaluation.md"
    try:
        out.mkdir(parents=True, exist_ok=True)
        evaluation.table.to_csv(out / "evaluation.csv", index=False)
        pictures = []
        for photograph in dict.fromkeys(crop.photograph for crop in evaluation.crops):
            picture = out / f"{Path(photograph).stem}.png"
            draw_crops([crop for crop in evaluation.crops if crop.photograph == photograph]).save(picture)
            pictures.append(f"## {photograph}\n\n![before, after and the truth]({picture.name})\n")
        title = f"# {card.label} on {len(pictures)} photographs"
        report.write_text("\n\n".join([title, LEGEND, markdown_table(evaluation.summary()), *pictures]), "utf-8")
    except OSError as error:
        raise DestinationError(f"cannot write the evaluation to {str(out)!r}: {error}") from error
    return report


LEGEND: Final = (
    "Mean over the photographs: PSNR in dB / SSIM / sharpness without a reference (1 less the blur metric of Crete et "
    "al., which takes noise for sharpness). In brackets the value of a filter's parameter that is best for that row. "
    "`clean` is measured against the input, which is to come out as it went in."
)


def markdown_table(summary: pd.DataFrame) -> str:
    """Write the summary of an `Evaluation` as a Markdown table: a row for each damage, a column for each method."""
    methods = list(dict.fromkeys(summary["method"]))
    lines = [f"| damage | strength | {' | '.join(methods)} |", f"| --- | --- |{' --- |' * len(methods)}"]
    for (kind, strength), rows in summary.groupby(["kind", "strength"], sort=False):
        by_method = rows.set_index("method")
        best = by_method["psnr_db"].replace(float("inf"), np.nan).idxmax()
        cells = [_cell(by_method.loc[method], is_best=method == best) for method in methods]
        lines.append(f"| {kind} | {strength} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_crops(crops: list[Crop]) -> Image.Image:
    """Lay the middle of each crop out: a row for each damage; before, after and the truth beside each other."""
    side = _CROP * _ZOOM
    pitch = side + _CAPTION + _GAP
    sheet = Image.new("RGB", (3 * (side + _GAP) + _GAP, len(crops) * pitch + _GAP), "#ffffff")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for row, crop in enumerate(crops):
        top = _GAP + row * pitch
        # One caption for the three: the damage may have more to say than fits above one of them.
        caption = f"{crop.level.kind}, {crop.level.strength}: before, after, and the truth"
        draw.text((_GAP, top), caption, fill="#333333", font=font)
        for column, pixels in enumerate((crop.before, crop.after, crop.truth)):
            sheet.paste(_middle(pixels, crop.truth.shape), (_GAP + column * (side + _GAP), top + _CAPTION))
    return sheet


def _middle(pixels: np.ndarray, like: tuple[int, ...]) -> Image.Image:
    """Cut the middle out and enlarge it without smoothing; what is half as large as the truth, twice as much."""
    image = Image.fromarray(pixels)
    if pixels.shape != like:
        image = image.resize((like[1], like[0]), Image.Resampling.NEAREST)
    width, height = min(_CROP, image.width), min(_CROP, image.height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    crop = image.crop((left, top, left + width, top + height))
    return crop.resize((width * _ZOOM, height * _ZOOM), Image.Resampling.NEAREST)


def _cell(row: pd.Series, *, is_best: bool) -> str:
    psnr = "same" if row["psnr_db"] == float("inf") else f"{row['psnr_db']:.2f}"
    parameter = f" ({row['parameter']:g})" if row["parameter"] else ""
    return f"{f'**{psnr}**' if is_best else psnr} / {row['ssim']:.3f} / {row['sharpness']:.2f}{parameter}"
