"""Dask's log while we run clusters of our own: what it says of their end would stand in a notebook's cell."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Final

_COUNTING: Final = threading.Lock()
_level_by_handler: Final[dict[logging.Handler, int]] = {}
_clusters = 0


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
