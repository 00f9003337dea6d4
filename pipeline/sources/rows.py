"""The rows of a manifest made of text: one value for each column that is asked for.

The readers take lines and know no files. They raise a ValueError that says what is wrong with the whole; a row that
nothing can be read from is one with a problem.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, Final, NamedTuple

MAX_LINE_BYTES: Final = 2**20
MAX_BLANK_LINES: Final = 2**20

# How many of a table's columns an error names.
_COLUMNS_SHOWN: Final = 20

# How a file of another kind begins, which people give the wrong name.
_KIND_BY_MAGIC: Final = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip, or a spreadsheet",
    b"PAR1": "Parquet",
}


class Row(NamedTuple):
    """One entry of a manifest.

    Attributes
    ----------
    number : int
        Of its last line or, where there are no lines, of the entry; from 1.
    values : sequence
        The values of the columns that were asked for, in their order; fewer if the row ends before.
    problem : str
        Why there are no values; empty if there are.
    """

    number: int
    values: Sequence[Any]
    problem: str = ""


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
            raise ValueError(f"line {number} is not UTF-8{_explain(line) if number == 1 else ''}") from error


def read_text(lines: Iterable[str]) -> Iterator[Row]:
    """Yield every line that is neither blank nor a comment, which begins with ``#``."""
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield Row(number, (text,))


def read_table(lines: Iterable[str], columns: Sequence[str], **dialect: Any) -> Iterator[Row]:
    """Yield columns of a table whose first row names them; `dialect` is as in `csv.reader`.

    Raises
    ------
    ValueError
        If a column is missing, or the quotes are such that rows would be lost.
    """
    # Strict, since an open quote would otherwise swallow every row that follows it without a word.
    rows = csv.reader(lines, strict=True, **dialect)
    try:
        header = [name.strip() for name in next(rows, [])]
        require_columns(columns, header)
        places = [header.index(column) for column in columns]
        for row in rows:
            # Spreadsheets leave rows of empty cells behind.
            if any(row):
                yield Row(rows.line_num, [row[place] if place < len(row) else None for place in places])
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}; is a quote left open, or not doubled?") from error


def read_json_lines(lines: Iterable[str], columns: Sequence[str]) -> Iterator[Row]:
    """Yield each line's string as the first column, or the values of its object.

    Raises
    ------
    ValueError
        If the first line has not the columns.
    """
    is_first = True
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Row(number, (), f"no JSON: {error}")
        else:
            yield Row(number, values_of(value, columns, is_first=is_first))
        is_first = False


def values_of(value: Any, columns: Sequence[str], *, is_first: bool) -> Sequence[Any]:
    """Return the values of an entry of JSON: an object, or a string, which is the first column.

    Raises
    ------
    ValueError
        If it is the first entry and has not the columns.
    """
    if isinstance(value, dict):
        if is_first:
            require_columns(columns, list(value))
        return [value.get(column) for column in columns]
    if is_first and len(columns) > 1:
        raise ValueError(f"it has no column {columns[1]!r}; its entries are not objects")
    return (value,)


def require_columns(columns: Sequence[str], found: Sequence[str]) -> None:
    """Raise a ValueError if one of the columns is not among those that were found."""
    if not found:
        raise ValueError("it is empty; its first row must name the columns")
    for column in columns:
        if column not in found:
            names = ", ".join(map(repr, found[:_COLUMNS_SHOWN])) + (", …" if len(found) > _COLUMNS_SHOWN else "")
            raise ValueError(f"it has no column {column!r}; its columns are {names}")


def _explain(start: bytes) -> str:
    kind = next((kind for magic, kind in _KIND_BY_MAGIC.items() if start.startswith(magic)), "")
    return f": it looks like {kind}" if kind else ""
