"""Train a model: photographs in, a ``.keras`` file and its model card out."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.catalogue import find_model
from pipeline.errors import ModelError, SourceError
from pipeline.training.course import Course, Step, Trained
from pipeline.training.lessons import LESSONS, Lesson
from pipeline.training.network_file import write_network
from pipeline.training.networks import BUILDERS
from pipeline.training.photographs import (
    Split,
    batches,
    clean_versions,
    draw_patch,
    find_photographs,
    split_photographs,
)

# The backends that can train, the faster one on a processor first.
_TRAINERS: Final = ("torch", "jax", "tensorflow")

# Rows and columns at a patch's edge that see the network's padding, and do not count.
_EDGE: Final = 8

_VALIDATION_PATCHES: Final = 24


def choose_backend() -> str:
    """Choose what Keras trains on: ``KERAS_BACKEND``, or the first that is installed of torch, jax and tensorflow.

    Raises
    ------
    ModelError
        If there is none, or the one chosen cannot train.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen and chosen not in _TRAINERS:
        raise ModelError(f"KERAS_BACKEND is {chosen!r}, which cannot train; allowed is {', '.join(_TRAINERS)}")
    for backend in [chosen] if chosen else _TRAINERS:
        if importlib.util.find_spec(backend):
            os.environ["KERAS_BACKEND"] = backend
            return backend
    raise ModelError(
        f"cannot train: {' or '.join([chosen] if chosen else _TRAINERS)} is not installed; "
        "`pip install 'image-pipeline[train]'` brings torch"
    )


def train(
    name: str,
    photos: Path,
    out: Path,
    course: Course | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
    start: Path | None = None,
) -> Trained:
    """Train a model of the catalogue, anew or further.

    The loss is the mean squared error of each patch relative to the damage that was done to it, so that a faintly
    damaged photograph counts as much as a ruined one. A run that was interrupted goes on from its last whole epoch when
    it is started again with the same folder.

    Parameters
    ----------
    name : {"restore", "upscale2x"}
    photos : Path
        A folder of photographs, which are taken as clean.
    out : Path
        A folder for ``NAME.keras`` and the checkpoints.
    course : Course, optional
    on_step : callable
        Told of every step.
    start : Path, optional
        A ``.keras`` file of the same network, whose weights are the first ones; chance without it.

    Raises
    ------
    ModelError
        If the model cannot be trained, `start` is of another network, or no backend that trains is installed.
    SourceError
        If the photographs are too few, too small or cannot be read.
    """
    course = course or Course()
    if name not in BUILDERS:
        raise ModelError(f"no model named {name!r} can be trained; there are: {', '.join(BUILDERS)}")
    backend = choose_backend()
    precision = _fastest_precision(backend)
    import keras

    keras.utils.set_random_seed(course.seed)
    lesson = LESSONS[name]
    split = split_photographs(find_photographs(photos), course.validation_share, course.seed)
    given, wanted = _validation_set(split, lesson, course.seed)
    pairs = batches(
        _versions(split.training, lesson),
        lesson.clean_size,
        course.batch_size,
        lesson.make_pair,
        np.random.default_rng(course.seed),
    )
    network = _build(name, precision)
    if start is not None:
        _begin_with(network, start)
    network.compile(_optimizer(course), loss=_squared_error)
    weights = _weights(given, wanted, lesson)
    errors_before = keras.ops.convert_to_numpy(_squared_error(wanted, _repeated(given, lesson.scale)))
    best = out / "checkpoints" / "best.weights.h5"
    best.parent.mkdir(parents=True, exist_ok=True)
    reporter = _reporter(course, float(np.mean(errors_before * weights)), on_step)
    network.fit(
        _in_background(pairs, course, lesson),
        epochs=course.epochs,
        validation_data=(given, wanted, weights),
        validation_batch_size=course.batch_size,
        callbacks=[
            keras.callbacks.ModelCheckpoint(
                best, monitor="val_loss", mode="min", save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.EarlyStopping(monitor="val_loss", mode="min", patience=course.patience),
            keras.callbacks.BackupAndRestore(out / "checkpoints" / "last"),
            keras.callbacks.CSVLogger(out / "history.csv", append=True),
            reporter,
        ],
        verbose=0,
    )
    network = _build(name, "float32")
    network.load_weights(best)
    path = out / f"{name}.keras"
    write_network(network, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Trained(
        card=replace(find_model(name), url=str(path), sha256=sha256, parameters=network.count_params(), figures=""),
        backend=backend,
        precision=precision,
        split=split,
        epochs=reporter.epoch,
        gain_db=reporter.gain_db,
    )


def _fastest_precision(backend: str) -> str:
    """Choose the dtype of the convolutions.

    Torch's take half the time in bfloat16 on a processor that computes with it, and eight times as long on one that
    does not; the other backends gain nothing.
    """
    if backend != "torch":
        return "float32"
    import torch

    computes_bf16 = torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "mixed_bfloat16" if computes_bf16 else "float32"


def _begin_with(network: Any, start: Path) -> None:
    try:
        network.load_weights(start)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"cannot begin with the weights of {str(start)!r}: {reason}") from error


def _build(name: str, precision: str) -> Any:
    import keras

    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(precision)
    try:
        return BUILDERS[name]()
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def _optimizer(course: Course) -> Any:
    import keras

    steps = course.epochs * course.steps
    warmup = min(200, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        course.learning_rate / 100,
        decay_steps=max(1, steps - warmup),
        alpha=0.01,
        warmup_target=course.learning_rate,
        warmup_steps=warmup,
    )
    return keras.optimizers.Adam(schedule, clipnorm=1.0)


def _squared_error(wanted: Any, predicted: Any) -> Any:
    """Mean squared error of each patch, less its edges."""
    from keras import ops

    squares = ops.square(ops.cast(wanted, "float32") - ops.cast(predicted, "float32"))
    return ops.mean(squares[:, _EDGE:-_EDGE, _EDGE:-_EDGE], axis=(1, 2, 3))


def _weights(given: NDArray[np.float32], wanted: NDArray[np.float32], lesson: Lesson) -> NDArray[np.float32]:
    """Weigh each patch so that what is left of its damage counts as a part of that damage."""
    damage = np.square(_repeated(given, lesson.scale) - wanted).mean(axis=(1, 2, 3))
    weights: NDArray[np.float32] = 1 / (damage + np.float32(lesson.least_damage))
    return weights


def _repeated(images: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    return images.repeat(scale, axis=1).repeat(scale, axis=2)


def _versions(paths: tuple[Path, ...], lesson: Lesson) -> list[NDArray[np.uint8]]:
    versions = [version for path in paths for version in clean_versions(path, lesson.clean_size)]
    if not versions:
        raise SourceError(
            f"none of {len(paths)} photographs is large enough: half of one must have {lesson.clean_size} pixels a side"
        )
    return versions


def _validation_set(split: Split, lesson: Lesson, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make pairs of the photographs that are not learnt from; the same for the same seed."""
    rng = np.random.default_rng(seed)
    versions = _versions(split.validation, lesson)
    pairs = [
        lesson.make_pair(draw_patch(version, lesson.clean_size, rng), rng)
        for version in versions
        for _ in range(_VALIDATION_PATCHES)
    ]
    given, wanted = (np.stack(side).astype(np.float32) / np.float32(255) for side in zip(*pairs, strict=True))
    return given, wanted


def _in_background(pairs: Any, course: Course, lesson: Lesson) -> Any:
    """Wrap a generator for Keras, which then prepares the next batches while it learns from one."""
    import keras

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return course.steps

        def __getitem__(self, index: int) -> Any:
            given, wanted = next(pairs)
            return given, wanted, _weights(given, wanted, lesson)

    return Batches(workers=1, use_multiprocessing=False, max_queue_size=8)


def _reporter(course: Course, loss_before: float, on_step: Callable[[Step], None]) -> Any:
    import keras

    class Reporter(keras.callbacks.Callback):  # type: ignore[misc]
        epoch = 0
        gain_db: float | None = None

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch + 1

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            on_step(Step(self.epoch, course.epochs, batch + 1, course.steps, self.gain_db))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            gain_db = 10 * math.log10(loss_before / float(logs["val_loss"]))
            self.gain_db = gain_db if self.gain_db is None else max(self.gain_db, gain_db)

    return Reporter()
