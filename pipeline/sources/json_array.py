"""A JSON array, read one entry at a time: one of ten million is never whole in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any, Final

from pipeline.sources.rows import MAX_LINE_BYTES, Row, values_of

_CHUNK_BYTES: Final = 2**16
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_DECODER: Final = json.JSONDecoder()

_ALLOWED: Final = "allowed is an array of strings or of objects: [{…}, {…}]; lines of JSON belong in a .jsonl file"


def read_json_array(file: IO[bytes], columns: Sequence[str]) -> Iterator[Row]:
    """Yield the entries of an array of strings, each as the first column, or of objects.

    Raises
    ------
    ValueError
        If it is no array, the first entry has not the columns, or an entry is broken: nothing tells then where the
        next one begins.
    """
    for number, value in enumerate(_entries(_Text(file)), start=1):
        yield Row(number, values_of(value, columns, is_first=number == 1))


def _entries(text: _Text) -> Iterator[Any]:
    start = text.peek()
    if not start:
        raise ValueError(f"it is empty; {_ALLOWED}")
    if start != "[":
        raise ValueError(f"it begins with {start!r}; {_ALLOWED}")
    text.skip()
    if text.peek() == "]":
        text.skip()
    else:
        delimiter, number = ",", 0
        while delimiter == ",":
            number += 1
            value, delimiter = text.read_value(number)
            yield value
        if delimiter != "]":
            raise ValueError(
                f"after entry {number} comes {delimiter!r} instead of ',' or ']'"
                if delimiter
                else f"it ends after entry {number}, without ']'"
            )
    if rest := text.peek():
        raise ValueError(f"after the array comes {rest!r}; allowed is one array")


class _Text:
    """A file's text, as far as it is needed for the next value."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._buffer = ""
        self._place = 0
        self._is_whole = False

    def peek(self) -> str:
        """Return the next character that is no space; empty at the end."""
        while True:
            space = _SPACE.match(self._buffer, self._place)
            assert space is not None  # It matches nothing, too.
            self._place = space.end()
            if self._place < len(self._buffer) or self._is_whole:
                return self._buffer[self._place : self._place + 1]
            self._read(_CHUNK_BYTES)

    def skip(self) -> None:
        """Pass over the character that `peek` returned."""
        self._place += 1

    def read_value(self, number: int) -> tuple[Any, str]:
        """Return the next value, and the character after it, which is passed over."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._place)
            except (ValueError, RecursionError) as error:
                size = len(self._buffer) - self._place
                if size > MAX_LINE_BYTES:
                    raise ValueError(f"entry {number} is broken, or longer than {MAX_LINE_BYTES} characters") from error
                if self._is_whole:
                    raise ValueError(f"entry {number}: {error}") from error
            else:
                # Of a number that ends where the buffer does, there may be more.
                if end < len(self._buffer) or self._is_whole:
                    self._place = end
                    delimiter = self.peek()
                    self.skip()
                    return value, delimiter
            # Twice as much each time: what is decoded anew stays a constant part of all.
            self._read(max(_CHUNK_BYTES, len(self._buffer) - self._place))

    def _read(self, size: int) -> None:
        data = self._file.read(size)
        self._is_whole = not data
        try:
            self._buffer = self._buffer[self._place :] + self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise ValueError("it is not UTF-8") from error
        self._place = 0
