"""What a run takes in: the Items of its collection, without those that need no work."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from pipeline.domain import IMAGE_FIELDS, Item, Outcome, SourceVersion
from pipeline.runner.earlier import EarlierJobs, StoredImage

# How many Items are looked at in one go: some milliseconds, in which the driver does nothing else.
LOOK_AT: Final = 500


@dataclass(frozen=True, slots=True)
class Taken:
    """Some Items of a collection.

    Attributes
    ----------
    items : list of Item
        Those that are to be worked on.
    skipped : list of Outcome
        Of those that are not.
    is_end : bool
        Whether there are no more.
    """

    items: list[Item]
    skipped: list[Outcome]
    is_end: bool


class Intake:
    """Takes Items in, and decides which of them are at the destination already.

    Parameters
    ----------
    items : iterator of Item
    earlier : EarlierJobs
    """

    def __init__(self, items: Iterator[Item], earlier: EarlierJobs) -> None:
        self._items = items
        self._earlier = earlier

    def take(self, n_items: int) -> Taken:
        """Return the next Items to work on, at most so many; perhaps none yet, though there are more."""
        taken = Taken([], [], is_end=False)
        for _ in range(LOOK_AT):
            item = next(self._items, None)
            if item is None:
                return replace(taken, is_end=True)
            match judge(item, self._earlier.find(item), time.time()):
                case Outcome() as skipped:
                    taken.skipped.append(skipped)
                case SourceVersion() as version:
                    taken.items.append(replace(item, stored_from=version))
                case None:
                    taken.items.append(item)
            if len(taken.items) == n_items:
                return taken
        return taken

    def put_back(self, items: list[Item]) -> None:
        """Make Items the next ones again."""
        self._items = itertools.chain([replace(item, stored_from=None) for item in items], self._items)

    def complete(self, outcome: Outcome) -> Outcome:
        """Tell where the image is of an Item that a worker found unchanged."""
        if outcome.status != "skipped" or outcome.duplicate_of or outcome.output:
            return outcome
        stored = self._earlier.find(outcome.item)
        return outcome if stored is None else _skipped(outcome, stored)


def judge(item: Item, stored: StoredImage | None, now: float) -> Outcome | SourceVersion | None:
    """Decide what an image that is at the destination means for an Item; pure.

    Parameters
    ----------
    item : Item
    stored : StoredImage or None
    now : float
        Seconds since the epoch.

    Returns
    -------
    Outcome, SourceVersion or None
        The Outcome ``skipped`` if its source has not changed; the version of the source from which it need not be made
        again, if only the source can tell; None if it is to be made.
    """
    if stored is None or item.problem:
        return None
    is_same_place = item.url == stored.url
    if is_same_place and item.fingerprint and item.fingerprint == stored.fingerprint:
        return _skipped(Outcome(item, "skipped", attempts=0, finished_at=now, source=stored.source), stored)
    return SourceVersion(stored.fingerprint if is_same_place else "", stored.source_sha256)


def _skipped(outcome: Outcome, stored: StoredImage) -> Outcome:
    return replace(outcome, model=stored.model, **{name: getattr(stored, name) for name in IMAGE_FIELDS})
