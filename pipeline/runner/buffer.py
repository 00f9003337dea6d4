"""Outcomes on their way to the ledger: a part every few seconds, and patience with a destination that fails."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, Final

from distributed import Client

from pipeline.domain import Outcome
from pipeline.errors import LeaseLostError, LedgerError, PartsRemovedError
from pipeline.runner.ledger import Ledger
from pipeline.runner.rows import outcome_row
from pipeline.runner.tenure import Tenure

log = logging.getLogger(__name__)

# How long a ledger that cannot be written is tried again.
PATIENCE_S: Final = 60.0


class OutcomeBuffer:
    """Keeps Outcomes until they are in the ledger.

    Parameters
    ----------
    ledger : Ledger
    recipe_fingerprint : str
        Of the Recipe that the Outcomes are of.
    tenure : Tenure, optional
        By which the ledger is written; without it, by the caller's word.
    """

    def __init__(self, ledger: Ledger, recipe_fingerprint: str, tenure: Tenure | None = None) -> None:
        self._ledger = ledger
        self._tenure = tenure
        self._recipe_fingerprint = recipe_fingerprint
        self._rows: list[dict[str, Any]] = []
        self._failing_since_s: float | None = None
        self._parts: list[str] = []

    def recover(self, now_s: float) -> None:
        """Bring what earlier runs have left into order, before the ledger is read."""

    def connect(self, client: Client) -> None:
        """Take the cluster on which the run goes on; there is none while nothing is to be worked on."""

    def add(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Take the Outcomes of a batch in; return them as the ledger is to have them."""
        self._rows += [outcome_row(outcome, self._recipe_fingerprint) for outcome in outcomes]
        return outcomes

    def advance(self, now_s: float, *, is_last: bool) -> bool:
        """Go on with what is to be done before the Outcomes are flushed; return whether there is nothing to wait for.

        Parameters
        ----------
        now_s : float
        is_last : bool
            Whether no Outcomes are to come.
        """
        return True

    def flush(self, now_s: float, *, is_last: bool = False) -> None:
        """Write what is here as one part; if that fails, or the lease is not known to hold, keep it for the next time.

        Raises
        ------
        LedgerError
            If it has failed for a minute, or there is no next time.
        PartsRemovedError
            If the ledger was removed since the last time.
        LeaseLostError
            If another driver has taken the job over, and there is no next time.
        """
        if not self._rows:
            if is_last:
                self._ledger.require_parts(self._parts)
            return
        if self._tenure and not self._tenure.is_known:
            if not is_last:
                # The reporter asks in this moment; a Redis that hangs is not to hold the run.
                return
            self._tenure.confirm()
        try:
            self._require_last_part()
            part = self._ledger.append_rows(self._rows)
            if self._tenure and not self._tenure.is_known:
                self._take_back_unless_ours(self._tenure, part)
        except PartsRemovedError:
            # The images of these rows were in the same folder.
            self._rows = []
            raise
        except LedgerError as error:
            self._failing_since_s = self._failing_since_s or now_s
            if is_last or now_s - self._failing_since_s > PATIENCE_S:
                raise
            log.warning("%s; the run goes on, and it is tried again", error)
        else:
            self._rows, self._failing_since_s = [], None
            self._parts.append(part)
            if is_last:
                self._ledger.require_parts(self._parts)

    def keep_suspects(self, keys: Collection[str]) -> None:
        """Keep at once which images have lost their worker.

        Raises
        ------
        LeaseLostError
            If another driver has taken the job over, who keeps his own.
        """
        if self._tenure:
            self._tenure.require()
        try:
            self._ledger.save_suspects(keys)
        except LedgerError as error:
            log.warning("%s; the run goes on", error)

    def _require_last_part(self) -> None:
        """Raise PartsRemovedError if the last part is gone, and a list of the folder says so too."""
        if self._parts and not self._ledger.has_part(self._parts[-1]):
            self._ledger.require_parts(self._parts)

    def _take_back_unless_ours(self, tenure: Tenure, part: str) -> None:
        """Remove a part that took so long that another driver may have taken the job over, and has.

        A process that is stopped between its question and its write goes on with the write.
        """
        try:
            tenure.confirm()
        except LeaseLostError:
            self._ledger.remove(part)
            raise

    def close(self) -> None:
        """Remove what only a run that goes on needs; everything has been flushed."""
