"""How a model is to be trained, how far that is, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.catalogue import ModelCard
from pipeline.training.photographs import Split


@dataclass(frozen=True, slots=True)
class Course:
    """How long and with what a model is trained.

    Attributes
    ----------
    epochs : int
        After each one the model is judged on the validation photographs, and kept if it is the best so far.
    steps : int
        Batches of an epoch.
    batch_size : int
        Patches of a batch; a multiple of four.
    learning_rate : float
        Of Adam, after 200 steps of warm-up; falls along a half cosine to a hundredth.
    patience : int
        Epochs without a better judgement after which training stops early.
    validation_share : float
        Of the photographs, 0 to 1.
    seed : int
    """

    epochs: int = 50
    steps: int = 1000
    batch_size: int = 8
    learning_rate: float = 2e-3
    patience: int = 25
    validation_share: float = 0.15
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """How far training is.

    Attributes
    ----------
    epoch, epochs, step, steps : int
        From 1; the last one may not come.
    gain_db : float or None
        How much less the loss of the best epoch so far is on the validation photographs than that of their damaged
        patches (for ``upscale2x``: with every pixel repeated), in decibels; None in the first epoch.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    gain_db: float | None


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model.

    Attributes
    ----------
    card : ModelCard
        As in the catalogue; its `url` is the new file.
    backend, precision : str
        What it was trained on, and the dtype of the convolutions.
    split : Split
        The photographs.
    epochs : int
        That were done.
    gain_db : float
        Of the best epoch, as in `Step`.
    """

    card: ModelCard
    backend: str
    precision: str
    split: Split
    epochs: int
    gain_db: float
