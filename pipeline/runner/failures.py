"""The failed images of a ledger, in groups that one remedy mends."""

from __future__ import annotations

import pandas as pd

from pipeline.errors import remedy_for


def group_failures(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Group the failed images by stage and error, the most frequent first.

    Returns
    -------
    DataFrame
        Columns ``stage error count example message remedy``: the example is one URL and its message.
    """
    failed = outcomes[outcomes["status"] == "failed"].groupby(["stage", "error"], as_index=False)
    groups = failed.agg(count=("key", "size"), example=("url", "first"), message=("message", "first"))
    groups["remedy"] = groups["error"].map(remedy_for)
    return groups.sort_values("count", ascending=False, ignore_index=True, kind="stable")
