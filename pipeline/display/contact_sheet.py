"""Many images on one: a grid of thumbnails that shows at a glance what a run made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from PIL import Image

from pipeline.display.thumbnails import BACKDROP, make_thumbnail
from pipeline.errors import DestinationError

Entry = TypeVar("Entry")

BACKGROUND: Final = "#eef0f3"


def make_contact_sheet(
    paths: Sequence[Path], *, columns: int = 8, cell_px: int = 160, max_images: int = 96
) -> Image.Image:
    """Lay images out in a grid, each whole in its cell and upright.

    Parameters
    ----------
    paths : sequence of Path
        Files that are missing or no images are left out.
    columns : int
        Fewer where there are fewer images.
    cell_px : int
        Width and height of a cell.
    max_images : int
        Of more, as many are shown, evenly spread over all of them.

    Returns
    -------
    PIL.Image.Image
        RGB. The gutters between the cells are as wide as the border around them.
    """
    margin = max(2, cell_px // 20)
    inner_px = cell_px - 2 * margin
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        thumbnails = [
            thumbnail
            for thumbnail in pool.map(lambda path: make_thumbnail(path, inner_px), spread(paths, max_images))
            if thumbnail
        ]
    columns = max(1, min(columns, len(thumbnails)))
    rows = max(1, -(-len(thumbnails) // columns))
    pitch = cell_px + margin
    sheet = Image.new("RGB", (columns * pitch + margin, rows * pitch + margin), BACKGROUND)
    for number, thumbnail in enumerate(thumbnails):
        row, column = divmod(number, columns)
        cell = Image.new("RGB", (cell_px, cell_px), BACKDROP)
        cell.paste(thumbnail, ((cell_px - thumbnail.width) // 2, (cell_px - thumbnail.height) // 2))
        sheet.paste(cell, (margin + column * pitch, margin + row * pitch))
    return sheet


def write_contact_sheet(paths: Sequence[Path], path: Path) -> None:
    """Write the contact sheet of `paths` to the file `path`, in the format that its suffix names.

    Raises
    ------
    DestinationError
        If the file cannot be written.
    """
    sheet = make_contact_sheet(paths)
    try:
        sheet.save(path)
    except OSError as error:
        raise DestinationError(f"cannot write the contact sheet {str(path)!r}: {error.strerror or error}") from error


def spread(entries: Sequence[Entry], most: int) -> list[Entry]:
    """Return at most so many entries, in their order and evenly spread; the first is always one of them."""
    shown = min(len(entries), most)
    return [entries[number * len(entries) // shown] for number in range(shown)]
