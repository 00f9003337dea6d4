"""What nobody wants to read between the bars of a terminal or in a notebook: Dask's log, what codecs say."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Final

from distributed import Worker, WorkerPlugin

_STDERR: Final = 2
_COUNTING: Final = threading.Lock()
_level_by_handler: Final[dict[logging.Handler, int]] = {}
_clusters = 0


class QuietCodecs(WorkerPlugin):  # type: ignore[misc]  # Dask ships no types
    """Keeps what C libraries write to standard error from it: libtiff has a line to say on every odd tag.

    What Python writes there, such as a traceback, still gets there. For workers that share a terminal with a person.
    """

    name = "pipeline-quiet-codecs"

    def setup(self, worker: Worker) -> None:
        """Part the two, once a process."""
        if sys.stderr.fileno() != _STDERR:
            return
        sys.stderr = os.fdopen(os.dup(_STDERR), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _STDERR)
        os.close(nowhere)


@contextlib.contextmanager
def quiet_dask() -> Iterator[None]:
    """Let only what is critical through until the end of the block, and of all blocks that overlap it.

    A cluster's own `silence_logs` ends with the first of two clusters that overlap, as those of a run that was
    cancelled and of the one that goes on with it.
    """
    global _clusters
    with _COUNTING:
        _clusters += 1
        if _clusters == 1:
            for handler in logging.getLogger("distributed").handlers:
                _level_by_handler[handler] = handler.level
                handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        with _COUNTING:
            _clusters -= 1
            if not _clusters:
                for handler, level in _level_by_handler.items():
                    handler.setLevel(level)
                _level_by_handler.clear()
