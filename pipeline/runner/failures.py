"""The failed images of a ledger, in groups that one remedy mends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import remedy_for
from pipeline.urls import redact

if TYPE_CHECKING:
    # Imported on use, since it takes half a second.
    import pandas as pd


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed images of one stage and one error; the example is one URL and its message."""

    stage: str
    error: str
    count: int
    example: str
    message: str

    @property
    def remedy(self) -> str:
        """What a user can do about it; empty if nothing is known."""
        return remedy_for(self.error)


def group_failures(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Group the failed images by stage and error, the most frequent first.

    Returns
    -------
    DataFrame
        Columns ``stage error count example message remedy``: the example is one URL and its message.
    """
    failed = outcomes[outcomes["status"] == "failed"].groupby(["stage", "error"], as_index=False)
    groups = failed.agg(count=("key", "size"), example=("url", "first"), message=("message", "first"))
    groups["example"] = groups["example"].map(redact)
    groups["remedy"] = groups["error"].map(remedy_for)
    return groups.sort_values("count", ascending=False, ignore_index=True, kind="stable")
