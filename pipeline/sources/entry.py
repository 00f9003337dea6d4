"""A row of a manifest becomes an Item."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

from pipeline.domain import Item, ManifestColumns, show_value
from pipeline.fingerprints import of_promise
from pipeline.sealing import is_sealed
from pipeline.sources.keys import key_for_url
from pipeline.sources.location import Location, encodable
from pipeline.sources.register import KeyRegister
from pipeline.sources.rows import Row
from pipeline.urls import redact, scheme_of

_LOCAL: Final = frozenset({"file", "local"})


class ItemMaker:
    """Makes the Items of one reading of a manifest, whose columns' values the rows have in the order of their names.

    Parameters
    ----------
    columns : ManifestColumns
    manifest : Location
    unit : {"line", "row"}
        What the rows' numbers count.
    unseal : callable, optional
        Opens what is sealed in a list that the job has kept itself; anywhere else, nothing is opened.
    """

    def __init__(
        self, columns: ManifestColumns, manifest: Location, unit: str, unseal: Callable[[str], str] | None = None
    ) -> None:
        self._columns = columns
        self._manifest = manifest
        self._unit = unit
        self._unseal = unseal
        self._n_named = len(columns.names)
        self._n_carried = len(columns.carry)
        self._stack = ExitStack()
        self._register = self._stack.enter_context(KeyRegister()) if columns.key else None

    def make(self, row: Row) -> Item:
        """Make the Item of a row; one with a problem if the row names no image."""
        values = [*row.values, *(None,) * (self._n_named - len(row.values))]
        carried = values[self._n_named - self._n_carried :]
        extra = tuple(zip(self._columns.carry, map(as_text, carried), strict=True))
        others = iter(values[1:])
        name = next(others) if self._columns.key else None
        expected_hash = as_text(next(others)) if self._columns.hash else None
        try:
            if row.problem:
                raise ValueError(row.problem)
            given = _require_url(self._columns.url, values[0])
            written = self._open(given)
            # Who carries the very column of the URLs does not mean their secrets.
            shown = encodable(redact(written))
            extra = tuple((name, shown if _is_same(value, written) else value) for name, value in extra)
            url = self._resolve(written, is_own=is_sealed(given))
            key = key_for_url(written) if self._register is None else self._claim(self._register, name, url)
        except ValueError as error:
            problem = f"{self._unit} {row.number} of {redact(self._manifest.url)!r}: {error}"
            return Item(f"{self._unit}-{row.number:06d}", "", extra=extra, problem=encodable(problem))
        promised = (expected_hash or "").strip()
        return Item(key, encodable(url), promised, extra, fingerprint=of_promise(promised))

    def _open(self, written: str) -> str:
        if not is_sealed(written):
            return written
        if self._unseal is None:
            raise ValueError("a sealed URL is opened by no job but the one that has kept it")
        return self._unseal(written)

    def _resolve(self, written: str, *, is_own: bool) -> str:
        # A path that was sealed here is the user's, wherever its list has been kept.
        url = written if is_own else self._manifest.resolve(written)
        if not (is_own or self._manifest.is_local) and scheme_of(url) in _LOCAL:
            where = "the web" if self._manifest.is_web else "an object store"
            raise ValueError(f"a manifest from {where} names no files of this machine")
        return url

    def _claim(self, register: KeyRegister, value: Any, url: str) -> str:
        column = self._columns.key
        name = as_text(value) if isinstance(value, str | int | float) else ""
        if not name or not name.strip():
            raise ValueError(f"its {column!r} is {_show(value)}; allowed is a text or a number")
        key = register.claim(name, url)
        if key is None:
            shown = _show(redact(name))
            raise ValueError(f"its {column!r} is {shown}, which another image above has; each needs its own")
        return key

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def as_text(value: object) -> str | None:
    """Return a manifest's value as text, the same whatever format it comes from: numbers and dates as they are written.

    None stays None; lists and objects become JSON.
    """
    match value:
        case None:
            return None
        case str():
            return encodable(value)
        case bool():
            return "true" if value else "false"
        case dict() | list():
            return encodable(json.dumps(value, ensure_ascii=False, default=str))
    return str(value)


def _require_url(column: str, value: object) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"no URL or path in {column!r}")
    if not isinstance(value, str):
        raise ValueError(f"{column!r} is {show_value(value)}; allowed is a URL or path as text")
    return value.strip()


def _is_same(carried: str | None, written: str) -> bool:
    """Whether a carried text is the URL of its row, which stands there without the spaces around it."""
    return carried is not None and carried.strip() == encodable(written)


def _show(value: object) -> str:
    return "empty" if value is None or value == "" else show_value(value)
