"""A grid of results in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pipeline.display.contact_sheet import spread
from pipeline.display.templating import render
from pipeline.display.thumbnails import make_pictures
from pipeline.urls import redact

if TYPE_CHECKING:
    import pandas as pd

SIDE_PX: Final = 320


@dataclass(frozen=True, slots=True)
class Tile:
    """One result: its thumbnail as a ``data:`` URL, and what is said of it."""

    picture: str
    key: str
    width: int
    height: int
    bytes_out: int
    output: str


@dataclass(frozen=True, slots=True)
class Gallery:
    """Results as pictures in a grid; a notebook shows it.

    Attributes
    ----------
    tiles : sequence of Tile
    stored : int
        How many results there are in all.
    """

    tiles: tuple[Tile, ...]
    stored: int

    def __repr__(self) -> str:
        return f"<Gallery of {len(self.tiles)} of {self.stored:,} results>"

    def _repr_html_(self) -> str:
        return render("gallery.html", gallery=self)


def make_gallery(outcomes: pd.DataFrame, limit: int, storage_options: Mapping[str, Any] | None = None) -> Gallery:
    """Make the gallery of a ledger: at most `limit` results, evenly spread; files that cannot be read are left out."""
    stored = outcomes[outcomes["output"] != ""].drop_duplicates("output")
    columns = ["key", "width", "height", "bytes_out"]
    row_by_output: dict[str, Any] = {
        str(row.pop("output")): row for row in stored[[*columns, "output"]].to_dict("records")
    }
    pictures = make_pictures(spread(list(row_by_output), limit), SIDE_PX, storage_options)
    tiles = [Tile(picture, **row_by_output[output], output=redact(output)) for output, picture in pictures]
    return Gallery(tuple(tiles), len(stored))
