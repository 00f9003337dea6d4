"""The newest of a ledger, for whoever watches a job: its failures in groups, and its latest results."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow.compute as pc

from pipeline.runner.failures import FailureGroup
from pipeline.runner.ledger import Ledger
from pipeline.urls import redact

_COLUMNS: Final = ["key", "url", "status", "output", "stage", "error", "message"]


@dataclass(frozen=True, slots=True)
class Latest:
    """What a ledger says so far: the groups of failures, the most frequent first, and the latest stored images."""

    failures: tuple[FailureGroup, ...] = ()
    outputs: tuple[str, ...] = ()


class LedgerTail:
    """Follows the ledger of one run; each look reads only the parts that are new.

    Parameters
    ----------
    ledger : Ledger
    most_outputs : int
        How many of the latest results are kept.
    """

    def __init__(self, ledger: Ledger, most_outputs: int) -> None:
        self._ledger = ledger
        self._seen_parts: set[str] = set()
        self._groups: dict[tuple[str, str], FailureGroup] = {}
        self._outputs: deque[str] = deque(maxlen=most_outputs)

    def read(self) -> Latest:
        """Return what the ledger says now.

        Raises
        ------
        LedgerError
            If it cannot be read.
        """
        for table in self._ledger.new_tables(self._seen_parts, _COLUMNS):
            self._count(table.filter(pc.equal(table["status"], "failed")).to_pylist())
            stored = table.filter(pc.not_equal(table["output"], ""))["output"]
            self._outputs.extend(stored.slice(max(0, len(stored) - (self._outputs.maxlen or 0))).to_pylist())
        by_count = sorted(self._groups.values(), key=lambda group: -group.count)
        return Latest(tuple(by_count), tuple(reversed(self._outputs)))

    def _count(self, failed: Sequence[dict[str, Any]]) -> None:
        for row in failed:
            name = (row["stage"], row["error"])
            group = self._groups.get(name) or FailureGroup(*name, 0, redact(row["url"]), row["message"])
            self._groups[name] = replace(group, count=group.count + 1)
