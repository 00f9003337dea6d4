"""What compresses a manifest: told by its name's ending, undone while it is read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from pipeline.sources.suffixes import compression_of


@contextmanager
def decompressed(name: str, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Open the bytes of a file that is compressed as the ending of its name says, or not; it is closed with them.

    Which kinds there are must not depend on what else is installed: fsspec would ask for packages for ``.zst``.
    """
    # Remote files of fsspec find the ends of lines slowly, and pyarrow's not at all.
    with file, io.BufferedReader(_source(compression_of(name), file)) as content:
        yield content


def _source(suffix: str, file: IO[bytes]) -> Any:
    match suffix:
        case ".gz":
            return gzip.GzipFile(fileobj=file)
        case ".bz2":
            return bz2.BZ2File(file)
        case ".xz":
            return lzma.LZMAFile(file)
        case ".zst":
            # Imported on use, since it takes a while.
            import pyarrow as pa

            return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
    return file
