"""What has become of a run's Items, entered once everywhere: in the counts, among the contents, for the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain import Outcome
from pipeline.runner.buffer import OutcomeBuffer
from pipeline.runner.contents import Contents, is_left
from pipeline.runner.core import RunCore
from pipeline.runner.intake import Intake


class Books:
    """The books of one run.

    Parameters
    ----------
    core : RunCore
    intake : Intake
    contents : Contents
    buffer : OutcomeBuffer
    """

    def __init__(self, core: RunCore, intake: Intake, contents: Contents, buffer: OutcomeBuffer) -> None:
        self._core = core
        self._intake = intake
        self._contents = contents
        self._buffer = buffer

    def skip(self, outcomes: Sequence[Outcome]) -> None:
        """Enter Items that need no work."""
        self._core.skip(self._enter(outcomes))

    def finish_batch(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Enter a batch that has ended."""
        self._core.finish_batch(number, self._enter([self._intake.complete(outcome) for outcome in outcomes]))

    def _enter(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Return what is known by now: without the duplicates that wait, with those that have waited."""
        made = self._buffer.add([self._contents.mark(each) for each in outcomes if not is_left(each)])
        left = self._contents.leave(each for each in outcomes if is_left(each))
        followers = self._buffer.add([*left, *self._contents.settle([*made, *left])])
        self._core.n_waiting = self._contents.n_waiting
        return [*made, *followers]
