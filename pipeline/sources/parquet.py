"""A manifest in Parquet: only the columns that are asked for, a few thousand rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources.rows import Row, require_columns

_BATCH_ROWS: Final = 4096
# Pages are read as they are needed: a writer may put a million rows into one row group.
_BUFFER_BYTES: Final = 2**20


def read_parquet(file: IO[bytes], columns: Sequence[str], first_number: int = 1) -> Iterator[Row]:
    """Yield the values of some columns; the first row has the number `first_number`.

    Raises
    ------
    ValueError
        If a column is missing or binary, or the first is no text; whatever pyarrow raises for a damaged file.
    """
    number = first_number
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES) as parquet:
        _require_types(columns, parquet.schema_arrow)
        wanted = list(dict.fromkeys(columns))
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=wanted, use_threads=False):
            for values in zip(*(batch.column(column).to_pylist() for column in columns), strict=True):
                yield Row(number, values)
                number += 1


def _require_types(columns: Sequence[str], schema: pa.Schema) -> None:
    require_columns(columns, schema.names)
    for column in columns:
        found = schema.field(column).type
        content = found.value_type if pa.types.is_dictionary(found) else found
        is_text = pa.types.is_string(content) or pa.types.is_large_string(content) or pa.types.is_string_view(content)
        if column == columns[0] and not is_text and not pa.types.is_null(content):
            raise ValueError(f"its column {column!r} is of type {found}; allowed is text: URLs or paths")
        if any(is_kind(content) for is_kind in _BINARY):
            raise ValueError(f"its column {column!r} is of type {found}; allowed are text, numbers and dates")


_BINARY: Final = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)
