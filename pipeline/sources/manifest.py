"""A manifest: a file that lists images, read in pieces."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from pipeline.domain import Item, ManifestColumns
from pipeline.sources.compression import decompressed
from pipeline.sources.entry import ItemMaker
from pipeline.sources.json_array import read_json_array
from pipeline.sources.location import Location, reading
from pipeline.sources.rows import Row, bounded_lines, decode_lines, read_json_lines, read_table, read_text
from pipeline.sources.suffixes import manifest_suffix_of

# What is numbered in the formats whose rows are no lines.
_NUMBERED_ROWS: Final = frozenset({".json", ".parquet"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """The images that a file lists, or a folder of Parquet files, in their order.

    A path that is not absolute is relative to the manifest's folder; its key comes from the path as written, so that
    the folder can be moved with its manifest and every key stays.

    A row without a usable URL (an empty cell, broken JSON) is an Item too, with a `problem` and the key
    ``line-000123``: fetching it fails, so that it is counted and named, and the run goes on. What breaks the whole
    (not UTF-8, an open quote, a damaged archive) is a SourceError when it is met.

    Attributes
    ----------
    name : str
    location : Location
    columns : ManifestColumns
        Of text manifests, which have none, only lines are read.
    unseal : callable or None
        Opens what is sealed in a list that the job has kept itself.
    """

    name: str
    location: Location
    columns: ManifestColumns
    unseal: Callable[[str], str] | None = None

    @classmethod
    def open(cls, name: str, location: Location, columns: ManifestColumns) -> Self:
        """Read as far as the first row.

        Raises
        ------
        SourceError
            If it cannot be read, is not UTF-8, or has not the columns.
        """
        manifest = cls(name, location, columns)
        next(iter(manifest), None)
        return manifest

    @property
    def has_columns(self) -> bool:
        """Whether its rows have more than a URL."""
        return self._suffix != ".txt"

    @property
    def looks_for(self) -> str:
        """What a row would be."""
        if not self.has_columns:
            return "a URL or path in each line"
        return f"a URL or path in {self.columns.url!r} of each row"

    def __iter__(self) -> Iterator[Item]:
        unit = "row" if self._suffix in _NUMBERED_ROWS else "line"
        with ItemMaker(self.columns, self.location, unit, self.unseal) as maker:
            for row in self._rows():
                yield maker.make(row)

    @property
    def _suffix(self) -> str:
        return manifest_suffix_of(self.location.file_name)

    def _rows(self) -> Iterator[Row]:
        number = 1
        for location in self._files():
            with reading(location.url):
                for row in _read(location, self._suffix, self.columns, number):
                    number = row.number + 1
                    yield row

    def _files(self) -> list[Location]:
        if self._suffix != ".parquet" or self.location.is_web or self.location.find_kind() != "folder":
            return [self.location]
        with reading(self.location.url):
            names = sorted(each.name for page in self.location.list_folder() for each in page if not each.is_folder)
            # As readers of Parquet data sets do: what begins with these is no part.
            parts = [name for name in names if name.lower().endswith(".parquet") and name[0] not in "._"]
            if not parts:
                raise ValueError("there are no .parquet files directly in this folder")
        return [self.location.below(name) for name in parts]


def _read(location: Location, suffix: str, columns: ManifestColumns, first_number: int) -> Iterator[Row]:
    if suffix == ".parquet":
        # Imported on use, since it takes a while.
        from pipeline.sources.parquet import read_parquet

        with location.open() as file:
            yield from read_parquet(file, columns.names, first_number)
        return
    with decompressed(location.file_name, location.open()) as file:
        if suffix == ".json":
            yield from read_json_array(file, columns.names)
            return
        lines = decode_lines(bounded_lines(file))
        match suffix:
            case ".txt":
                yield from read_text(lines)
            case ".csv":
                yield from read_table(lines, columns.names)
            case ".tsv":
                # No quotes: exports of captions are full of single ones.
                yield from read_table(lines, columns.names, delimiter="\t", quoting=csv.QUOTE_NONE)
            case _:
                yield from read_json_lines(lines, columns.names)
