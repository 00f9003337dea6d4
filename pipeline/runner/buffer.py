"""Outcomes on their way to the ledger: a part every few seconds, and patience with a destination that fails."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from pipeline.domain import Outcome
from pipeline.errors import LedgerError
from pipeline.runner.ledger import Ledger

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
    """

    def __init__(self, ledger: Ledger, recipe_fingerprint: str) -> None:
        self._ledger = ledger
        self._recipe_fingerprint = recipe_fingerprint
        self._outcomes: list[Outcome] = []
        self._failing_since_s: float | None = None

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Take Outcomes in."""
        self._outcomes += outcomes

    def flush(self, now_s: float, *, is_last: bool = False) -> None:
        """Write what is here as one part; if that fails, keep it for the next time.

        Raises
        ------
        LedgerError
            If it has failed for a minute, or there is no next time.
        """
        if not self._outcomes:
            return
        try:
            self._ledger.append(self._outcomes, self._recipe_fingerprint)
        except LedgerError as error:
            self._failing_since_s = self._failing_since_s or now_s
            if is_last or now_s - self._failing_since_s > PATIENCE_S:
                raise
            log.warning("%s; the run goes on, and it is tried again", error)
        else:
            self._outcomes, self._failing_since_s = [], None
