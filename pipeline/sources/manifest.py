"""A manifest: a file that lists images, read line by line.

The readers take lines and know no files. They raise a ValueError that says what is wrong with the whole; a row without
a usable URL is one that they yield with an empty one.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, Self

from pipeline.domain import Item
from pipeline.sources.keys import key_for_url
from pipeline.sources.location import Location, encodable, reading
from pipeline.sources.suffixes import manifest_suffix_of

# The number of a line, and the URL or path that it holds.
Row = tuple[int, str]

MAX_LINE_BYTES: Final = 2**20
MAX_BLANK_LINES: Final = 2**20

# How many of a table's columns an error names.
_COLUMNS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """The images that a file lists, in its order.

    A path that is not absolute is relative to the manifest's folder; its key comes from the path as written, so that
    the folder can be moved with its manifest and every key stays.

    A row without a usable URL (an empty cell, broken JSON) is an Item too, with an empty URL and the key
    ``line-000123``: fetching it fails, so that it is counted and named, and the run goes on. What breaks the whole
    (not UTF-8, an open quote, a damaged archive) is a SourceError when it is met.

    Attributes
    ----------
    name : str
    location : Location
    url_column : str
        The column, or the field, that holds the URLs; text manifests have none.
    """

    name: str
    location: Location
    url_column: str

    @classmethod
    def open(cls, name: str, location: Location, url_column: str) -> Self:
        """Read as far as the first row.

        Raises
        ------
        SourceError
            If it cannot be read, is not UTF-8, or has not the column.
        """
        manifest = cls(name, location, url_column)
        next(iter(manifest), None)
        return manifest

    @property
    def looks_for(self) -> str:
        """What a row would be."""
        if manifest_suffix_of(self.location.path) == ".txt":
            return "a URL or path in each line"
        return f"a URL or path in {self.url_column!r} of each row"

    def __iter__(self) -> Iterator[Item]:
        folder = self.location.url.rpartition("/")[0]
        with (
            reading(self.location.url),
            self.location.fs.open(self.location.path, "rb", compression="infer") as file,
            # Remote files of fsspec find the ends of lines slowly.
            io.BufferedReader(file) as lines,
        ):
            for number, written in self._read(decode_lines(bounded_lines(lines))):
                if not written:
                    yield Item(f"line-{number:06d}", "")
                    continue
                is_whole = written.startswith("/") or "://" in written
                yield Item(key_for_url(written), encodable(written if is_whole else f"{folder}/{written}"))

    def _read(self, lines: Iterator[str]) -> Iterator[Row]:
        match manifest_suffix_of(self.location.path):
            case ".txt":
                return read_text(lines)
            case ".csv":
                return read_table(lines, self.url_column)
            case ".tsv":
                # No quotes: exports of captions are full of single ones.
                return read_table(lines, self.url_column, delimiter="\t", quoting=csv.QUOTE_NONE)
            case _:
                return read_json_lines(lines, self.url_column)


def bounded_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield lines of a file whose lines have a sane length, and of which not all are blank.

    Raises
    ------
    ValueError
        If one is too long, or too many in a row are blank: a small archive may hold gigabytes of either.
    """
    blank = 0
    for number in itertools.count(1):
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"line {number} is longer than {MAX_LINE_BYTES} bytes")
        blank = blank + 1 if line.isspace() else 0
        if blank > MAX_BLANK_LINES:
            raise ValueError(f"more than {MAX_BLANK_LINES} lines up to line {number} are blank")
        yield line


def decode_lines(lines: Iterable[bytes]) -> Iterator[str]:
    """Decode UTF-8, with or without a byte order mark, one line at a time.

    Raises
    ------
    ValueError
        That names the first line that is not UTF-8.
    """
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"line {number} is not UTF-8") from error


def read_text(lines: Iterable[str]) -> Iterator[Row]:
    """Yield every line that is neither blank nor a comment, which begins with ``#``."""
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield number, text


def read_table(lines: Iterable[str], column: str, **dialect: Any) -> Iterator[Row]:
    """Yield one column of a table whose first row names the columns; `dialect` is as in `csv.reader`.

    Raises
    ------
    ValueError
        If the column is missing, or the quotes are such that rows would be lost.
    """
    # Strict, since an open quote would otherwise swallow every row that follows it without a word.
    rows = csv.reader(lines, strict=True, **dialect)
    try:
        header = [name.strip() for name in next(rows, [])]
        _require_column(column, header)
        index = header.index(column)
        for row in rows:
            # Spreadsheets leave rows of empty cells behind.
            if any(row):
                yield rows.line_num, row[index].strip() if index < len(row) else ""
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}; is a quote left open, or not doubled?") from error


def read_json_lines(lines: Iterable[str], column: str) -> Iterator[Row]:
    """Yield each line's string, or the string in one field of its object.

    Raises
    ------
    ValueError
        If the first line is an object without that field.
    """
    is_first = True
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        value = _parse_json(line)
        if isinstance(value, dict):
            if is_first:
                _require_column(column, list(value))
            value = value.get(column)
        is_first = False
        yield number, value if isinstance(value, str) and value.strip() else ""


def _parse_json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _require_column(column: str, columns: Sequence[str]) -> None:
    if not columns:
        raise ValueError("it is empty; its first row must name the columns")
    if column not in columns:
        names = ", ".join(map(repr, columns[:_COLUMNS_SHOWN])) + (", …" if len(columns) > _COLUMNS_SHOWN else "")
        raise ValueError(f"it has no column {column!r}; its columns are {names}")
