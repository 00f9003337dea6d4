"""The model card that is written beside a trained model, in Markdown."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pipeline.training.course import Course, Trained
from pipeline.training.degradation import draw_degradation, draw_light_degradation
from pipeline.training.evaluation import Evaluation
from pipeline.training.lessons import LESSONS
from pipeline.training.tables import LEGEND, markdown_table

_DAMAGE = {"restore": draw_degradation, "upscale2x": draw_light_degradation}


def describe_model(trained: Trained, course: Course, evaluation: Evaluation, *, command: str, licence: str) -> str:
    """Describe a trained model: data, licence, damage, figures, date and command.

    Parameters
    ----------
    trained : Trained
    course : Course
    evaluation : Evaluation
        On the photographs of `trained.split.validation`.
    command : str
        That trained it.
    licence : str
        Of the photographs; empty if nobody said.
    """
    name = trained.card.name
    learnt, judged = (
        ", ".join(path.name for path in paths) for paths in (trained.split.training, trained.split.validation)
    )
    return f"""# {name}

- File: `{Path(trained.card.url).name}`, SHA-256 `{trained.card.sha256}`
- Parameters: {trained.card.parameters:,}
- Date: {datetime.now(UTC):%Y-%m-%d}
- Command: `{command}`
- Trained with Keras on {trained.backend} ({trained.precision}): {trained.epochs} of {course.epochs} epochs of
  {course.steps} batches of {course.batch_size} patches, Adam with a learning rate of {course.learning_rate:g}
  that falls along a half cosine, seed {course.seed}.

## Data

{len(trained.split.training)} photographs to learn from: {learnt}.

{len(trained.split.validation)} other photographs to choose the best epoch by, and for the figures below: {judged}.

Licence of the photographs: {licence or "not given"}. The file holds no part of them.

## What it learnt to undo

{_story_of(LESSONS[name].make_pair)}

{_story_of(_DAMAGE[name])}

## Figures

On the validation photographs. {LEGEND}

{markdown_table(evaluation.summary())}
"""


def _story_of(function: Callable[..., object]) -> str:
    """Return a docstring without its numpydoc sections."""
    return (inspect.getdoc(function) or "").split("\n\nParameters\n")[0]
