"""One image before and after, with a slider between: HTML alone, which works offline, saved and without a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from PIL import Image

from pipeline.display.templating import render
from pipeline.display.thumbnails import BACKDROP, data_url

# As wide as a notebook's column: the two are kept in the notebook.
LONGEST_SIDE_PX: Final = 1024

_QUALITY: Final = 90


def render_comparison(
    before: Image.Image,
    after: Image.Image,
    *,
    bytes_before: int,
    bytes_after: int,
    suffix: str,
    seconds: Mapping[str, float],
) -> str:
    """Render both images, one over the other, with their sizes and what each stage took.

    Parameters
    ----------
    before, after : PIL.Image.Image
        Shown at the size of `after`, at most `LONGEST_SIDE_PX`, filling the same frame.
    bytes_before, bytes_after : int
    suffix : str
        Of the stored file, such as ``.webp``.
    seconds : mapping of str to float
        By stage.
    """
    shown = _fit(after, after.size)
    whole = sum(seconds.values()) or 1.0
    return render(
        "compare.html",
        before_url=data_url(_fit(before, shown.size), _QUALITY),
        after_url=data_url(shown, _QUALITY),
        width=shown.width,
        height=shown.height,
        facts=[
            ("before", f"{before.width} × {before.height}", bytes_before),
            (f"after ({suffix.lstrip('.')})", f"{after.width} × {after.height}", bytes_after),
        ],
        seconds=seconds,
        shares={stage: 100 * spent / whole for stage, spent in seconds.items()},
        ratio=bytes_after / bytes_before if bytes_before else 0.0,
    )


def _fit(image: Image.Image, size_columns_rows: tuple[int, int]) -> Image.Image:
    """Return an image in RGB at a size, or smaller if that is longer than what is shown; cropped to its aspect."""
    scale = min(1.0, LONGEST_SIDE_PX / max(size_columns_rows))
    columns, rows = (max(1, round(side * scale)) for side in size_columns_rows)
    opaque = Image.new("RGBA", image.size, BACKDROP)
    opaque.alpha_composite(image.convert("RGBA"))
    return opaque.convert("RGB").resize((columns, rows), Image.Resampling.LANCZOS)
