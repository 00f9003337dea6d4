"""The snapshot of a run that its own process sees, whatever Redis knows of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pipeline.domain import Progress


class Shown:
    """The latest snapshot of a run, for any thread.

    Parameters
    ----------
    first : Progress
    """

    def __init__(self, first: Progress) -> None:
        self.latest = first
        self.has_ended = False
        self._changed = threading.Condition()

    def show(self, progress: Progress) -> None:
        """Replace the snapshot."""
        with self._changed:
            self.latest = progress
            self._changed.notify_all()

    def end(self) -> None:
        """Say that no other will come."""
        with self._changed:
            self.has_ended = True
            self._changed.notify_all()

    def updates(self) -> Iterator[Progress]:
        """Yield the snapshot, then each newer one, until the run has ended."""
        shown: Progress | None = None
        while shown is not self.latest or not self.has_ended:
            with self._changed:
                while shown is self.latest and not self.has_ended:
                    self._changed.wait()
                is_news, shown = shown is not self.latest, self.latest
            if is_news:
                yield shown
