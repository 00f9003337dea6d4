"""Dask's own performance report of a run: its task stream, bandwidths and profiles, in one HTML file."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from distributed import Client, performance_report

from pipeline.errors import DestinationError
from pipeline.storage import storage_errors

log = logging.getLogger(__name__)


@contextlib.contextmanager
def open_reported(connect: Callable[[], AbstractContextManager[Client]], path: Path) -> Iterator[Client]:
    """Open a client, and write Dask's report of what it did in the block to a file that needs no network.

    A report that cannot be written is a warning in the log: the images are stored all the same.
    """
    with connect() as client, client.as_current():
        recording = performance_report(str(path), mode="inline")
        with _warning_of(path):
            recording.__enter__()
        try:
            yield client
        finally:
            # A scheduler that is gone has nothing to report.
            if client.status == "running":
                with _warning_of(path):
                    recording.__exit__(None, None, None)


@contextlib.contextmanager
def _warning_of(path: Path) -> Iterator[None]:
    try:
        with storage_errors(DestinationError, f"cannot write Dask's report {str(path)!r}"):
            yield
    except DestinationError as error:
        log.warning("%s", error)
