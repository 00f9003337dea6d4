"""``pipeline models``, ``train`` and ``evaluate``: the enhancement models."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import pipeline
from pipeline.catalogue import ModelCard, find_model, load_model
from pipeline.display.text import open_console, write_json
from pipeline.interfaces.cli.options import AsJson
from pipeline.settings import Settings

if TYPE_CHECKING:
    from pipeline.training.evaluation import Evaluation

Photos = Annotated[Path, typer.Option(metavar="DIR", help="A folder of photographs; those below it count too.")]


def models(json: AsJson = False) -> None:
    """List the enhancement models: the shipped ones, and those that PIPELINE_MODELS registers."""
    cards = pipeline.models()
    if json:
        for card in cards:
            write_json(dataclasses.asdict(card))
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("Model", no_wrap=True)
    table.add_column("Scale", no_wrap=True)
    table.add_column("Parameters", justify="right", no_wrap=True)
    table.add_column("SHA-256", no_wrap=True)
    table.add_column("What it does")
    for card in cards:
        parameters = "" if card.parameters is None else f"{card.parameters:,}"
        story = escape(card.description) + (f"\n[dim]{escape(card.figures)}[/]" if card.figures else "")
        table.add_row(f"[bold]{escape(card.name)}[/]", f"{card.scale}×", parameters, card.sha256[:12], story)
    open_console().print(table, highlight=False)


def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="restore or upscale2x.")],
    photos: Photos,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the model and its card go.")] = Path("trained"),
    epochs: Annotated[int, typer.Option(min=1, help="At most; it stops early when nothing is gained any more.")] = 50,
    steps: Annotated[int, typer.Option(min=1, help="Batches of an epoch.")] = 1000,
    learning_rate: Annotated[float, typer.Option(min=1e-6, max=1.0, help="Of Adam, at its highest.")] = 2e-3,
    seed: Annotated[int, typer.Option(min=0, help="The same again draws the same.")] = 1,
    licence: Annotated[str, typer.Option(metavar="TEXT", help="Of the photographs, for the card.")] = "",
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Begin with this .keras file's weights, not by chance.",
        ),
    ] = None,
) -> None:
    """Train a model on your photographs, anew or further, and write its file and its card.

    Needs the extra `train`. Started again with the same folder, it goes on where it was interrupted.
    """
    from pipeline.training.course import Course, Step
    from pipeline.training.fit import choose_backend
    from pipeline.training.fit import train as train_model
    from pipeline.training.model_card import describe_model

    choose_backend()
    console = open_console()
    course = Course(epochs=epochs, steps=steps, learning_rate=learning_rate, seed=seed)
    with Progress(
        TextColumn(f"Training {escape(model)}"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("", total=epochs * steps, told="reading the photographs")

        def show(step: Step) -> None:
            gain = "" if step.gain_db is None else f", best {step.gain_db:+.2f} dB"
            done = (step.epoch - 1) * steps + step.step
            bar.update(task, completed=done, told=f"epoch {step.epoch} of {epochs}{gain}")

        trained = train_model(model, photos, out, course, on_step=show, start=start)
    evaluation = _evaluate(trained.card, trained.split.validation, with_filters=False)
    text = out / f"{model}.md"
    command = shlex.join(["pipeline", *sys.argv[1:]])
    text.write_text(describe_model(trained, course, evaluation, command=command, licence=licence), "utf-8")
    console.print(
        f"\n[bold]{escape(trained.card.url)}[/] and its card [bold]{escape(str(text))}[/]. To use it under a name "
        "of yours, put this into the file that PIPELINE_MODELS names:\n",
        highlight=False,
    )
    console.print(
        escape(
            f"[models.my-{model}]\n"
            f'url = "{Path(trained.card.url).absolute()}"\n'
            f'sha256 = "{trained.card.sha256}"\n'
            f"scale = {trained.card.scale}"
        ),
        highlight=False,
        soft_wrap=True,
    )


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model of `pipeline models`.")],
    photos: Photos,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the table and the pictures go.")] = Path("evaluation"),
) -> None:
    """Measure a model on photographs that it was not trained on, beside classical filters.

    For each kind and level of damage: PSNR, SSIM and a sharpness without a reference, of the input, the model, an
    unsharp mask, a bilateral filter and non-local means, each filter with its best parameter; of Lanczos and bicubic
    for a model that doubles the size. Needs the extra `train`.
    """
    from pipeline.training.photographs import find_photographs
    from pipeline.training.tables import write_evaluation

    card = find_model(model, Settings.from_environ().models)
    evaluation = _evaluate(card, find_photographs(photos), with_filters=True)
    report = write_evaluation(evaluation, card, out)
    console = open_console()
    console.print(_summary_table(evaluation), highlight=False)
    console.print(f"\n[bold]{escape(str(report))}[/] has this table and leads to pictures.", highlight=False)


def _evaluate(card: ModelCard, paths: Sequence[Path], *, with_filters: bool) -> Evaluation:
    from pipeline.training.evaluation import evaluate as evaluate_model

    with Progress(
        TextColumn(f"Evaluating {escape(card.name)}"), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("", total=len(paths))
        return evaluate_model(
            load_model(card),
            paths,
            lambda done, total: bar.update(task, completed=done, total=total),
            with_filters=with_filters,
        )


def _summary_table(evaluation: Evaluation) -> Table:
    """Lay PSNR out: a row for each damage, a column for each method; the best one is bold."""
    psnr = evaluation.summary().pivot_table(
        index=["kind", "strength"], columns="method", values="psnr_db", sort=False, observed=True
    )
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), title="PSNR in dB", title_justify="left")
    for name in ("Damage", "Strength", *psnr.columns):
        table.add_column(str(name), justify="right" if name in psnr.columns else "left")
    for (kind, strength), row in zip(psnr.index.to_list(), psnr.to_numpy(), strict=True):
        best = row[np.isfinite(row)].max()
        cells = ("same" if value == float("inf") else f"{value:.2f}" for value in row)
        styled = (f"[bold]{cell}[/]" if value == best else cell for cell, value in zip(cells, row, strict=True))
        table.add_row(kind, strength, *styled)
    return table
