"""Exit codes: what a script or a scheduler can tell from the end of a command."""

from __future__ import annotations

from typing import Final

from pipeline.domain import Progress
from pipeline.errors import (
    DestinationError,
    JobNotFoundError,
    ModelError,
    PipelineError,
    RecipeError,
    SettingsError,
    SourceError,
    StageError,
)

OK: Final = 0
SOME_FAILED: Final = 1
USAGE: Final = 2
NOT_RUN: Final = 3
INTERRUPTED: Final = 130

# What the user typed is at fault, rather than what it met.
_USAGE_ERRORS: Final = (
    SettingsError,
    RecipeError,
    SourceError,
    DestinationError,
    ModelError,
    JobNotFoundError,
    StageError,
)


def code_of(outcome: PipelineError | Progress) -> int:
    """Return the exit code of a command that ended with this error, or with the job in this state."""
    match outcome:
        case PipelineError():
            return USAGE if isinstance(outcome, _USAGE_ERRORS) else NOT_RUN
        case Progress(status="completed"):
            return SOME_FAILED if outcome.failed else OK
        case Progress(status="cancelled"):
            return INTERRUPTED
        case _:
            return NOT_RUN
