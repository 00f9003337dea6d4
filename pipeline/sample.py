"""A few images of a collection, in this process: what a recipe makes of them, and what it will cost for all."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dask.system import CPU_COUNT
from fsspec.asyn import get_loop, sync
from PIL import Image, ImageChops, ImageOps

from pipeline.choosing import choose_model
from pipeline.display.compare import render_comparison
from pipeline.display.templating import render
from pipeline.display.wording import format_bytes, format_seconds
from pipeline.domain import FetchPolicy, Item, Job, ManifestColumns, Outcome, Recipe
from pipeline.errors import StageError, error_named
from pipeline.runner.images import Carried, Equipment
from pipeline.settings import Settings
from pipeline.sources import first_item, folder_of, open_collection
from pipeline.stages.codec import open_image
from pipeline.stages.resize import resize_image, scale_image
from pipeline.storage import absolute

SAMPLE_ITEMS: Final = 24

# The sample is taken evenly from the first items of the collection; the rest is only counted.
SAMPLE_FROM_ITEMS: Final = 5000

# Seconds for one answer of a source that is only tried.
TRIAL_TIMEOUT_S: Final = 10.0

# Fetches under way for each thread that computes, at the least: what the driver's window keeps ahead.
FETCHES_PER_THREAD: Final = 16

ADVICE: Final[Mapping[str, str]] = {
    "fetch": "The source is the limit: run closer to it, or with more workers.",
    "resize": "Decoding and scaling are the limit: more cores help, or smaller sources.",
    "enhance": "The model is the limit: more cores or a GPU help, or a smaller box.",
    "store": "Encoding is the limit: JPEG and WebP encode faster than AVIF and PNG; more cores help.",
}


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """What a run would take, judged by a sample; a notebook shows it with a bar for each stage.

    Attributes
    ----------
    total : int
        Items in the collection.
    sampled, failed : int
        Items that were tried, and those of them that failed.
    seconds_by_stage : mapping of str to float
        Mean seconds of one image in each stage, on one core.
    bytes_in, bytes_out : float
        Mean bytes of one image.
    peak_bytes : int
        Memory that the largest image of the sample needs while it is decoded.
    threads : int
        Cores that the estimate is for.
    images_per_second : float
        What a run with so many threads is expected to reach.
    eta_seconds : float
        What the whole collection will take at that speed.
    bottleneck : {"fetch", "resize", "enhance", "store"}
    advice : str
        What would make the run faster.
    """

    total: int
    sampled: int
    failed: int
    seconds_by_stage: Mapping[str, float]
    bytes_in: float
    bytes_out: float
    peak_bytes: int
    threads: int
    images_per_second: float
    eta_seconds: float
    bottleneck: str
    advice: str

    def __repr__(self) -> str:
        takes = f"about {format_seconds(self.eta_seconds)} at {self.images_per_second:,.1f} images/s"
        return f"<Plan {self.total:,} images, {takes} on {self.threads} cores, bottleneck {self.bottleneck}>"

    def _repr_html_(self) -> str:
        return render("plan.html", plan=self, slowest_s=max(self.seconds_by_stage.values()) or 1.0)


@dataclass(frozen=True, slots=True, repr=False)
class Preview:
    """One image before and after.

    Attributes
    ----------
    before, after : PIL.Image.Image
        The source, upright; and the result, decoded from `encoded`.
    difference : PIL.Image.Image
        RGB: how far `after` is from what it would be without the model and encoding, in levels of 255; black where
        nothing has changed.
    encoded : bytes
        Byte for byte what a batch run stores.
    suffix : str
        The suffix of the stored file, such as ``.webp``.
    seconds : mapping of str to float
        Seconds of each stage.
    bytes_before : int
        Of the source.
    """

    before: Image.Image
    after: Image.Image
    difference: Image.Image
    encoded: bytes
    suffix: str
    seconds: Mapping[str, float]
    bytes_before: int

    def __repr__(self) -> str:
        took = ", ".join(f"{stage} {format_seconds(spent)}" for stage, spent in self.seconds.items())
        sizes = f"{_describe(self.before)} → {_describe(self.after)}"
        return f"<Preview {sizes} {self.suffix}, {format_bytes(len(self.encoded))}: {took}>"

    def _repr_html_(self) -> str:
        return render_comparison(
            self.before,
            self.after,
            bytes_before=self.bytes_before,
            bytes_after=len(self.encoded),
            suffix=self.suffix,
            seconds=self.seconds,
        )


def preview(
    image: str | os.PathLike[str],
    recipe: Recipe | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    allow_private: bool | None = None,
) -> Preview:
    """Do to one image what a run would do, and return both; a notebook shows them with a slider between.

    The source has ten seconds, and is asked once.

    Parameters
    ----------
    image : path or URL
    recipe : Recipe, optional
    storage_options : mapping, optional
        As in fsspec.
    allow_private : bool, optional
        Whether the image may be on an address that is not public; ``PIPELINE_ALLOW_PRIVATE`` if not given.

    Returns
    -------
    Preview

    Raises
    ------
    StageError
        If the image cannot be fetched, decoded, enhanced or encoded.
    RecipeError, ModelError, SettingsError
        As in `pipeline.run`.
    """
    recipe = recipe or Recipe()
    with _trial(recipe, storage_options, allow_private) as equipment:
        fetched = sync(get_loop(), equipment.fetch, Item("preview", absolute(image)))
        outcome = equipment.finish(fetched)
        if outcome.failure:
            raise (error_named(outcome.failure.error) or StageError)(outcome.failure.message)
        encoded = Path(outcome.output).read_bytes()
    assert isinstance(fetched.payload, bytes)
    before, after = ImageOps.exif_transpose(open_image(fetched.payload)), Image.open(io.BytesIO(encoded))
    plain = scale_image(resize_image(fetched.payload, recipe).image, after.size)
    difference = ImageChops.difference(plain.convert("RGB"), after.convert("RGB"))
    suffix = Path(outcome.output).suffix
    return Preview(before, after, difference, encoded, suffix, outcome.seconds, len(fetched.payload))


def plan(
    collection: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    recipe: Recipe | None = None,
    *,
    threads: int | None = None,
    url_column: str = "url",
    storage_options: Mapping[str, Any] | None = None,
    allow_private: bool | None = None,
    follow_links: bool = False,
) -> Plan:
    """Try a sample of a collection on one core, and estimate the whole; nothing is kept.

    A source has ten seconds and is asked once: what recovers in a run counts as failed here. The estimate is for cores
    of this kind.

    Parameters
    ----------
    collection : path, glob, URL, manifest, or a sequence of paths and URLs
        As in `pipeline.run`.
    recipe : Recipe, optional
    threads : int, optional
        The cores to estimate for; this machine's if not given.
    url_column : str
        The manifest's column that holds the URLs.
    storage_options : mapping, optional
        As in fsspec.
    allow_private : bool, optional
        Whether sources may be on addresses that are not public; ``PIPELINE_ALLOW_PRIVATE`` if not given.
    follow_links : bool
        As in `pipeline.run`.

    Returns
    -------
    Plan

    Raises
    ------
    RecipeError, ModelError, SourceError, SettingsError
        As in `pipeline.run`.
    """
    recipe = recipe or Recipe()
    opened = open_collection(collection, columns=ManifestColumns(url_column), storage_options=storage_options)
    first_item(opened)
    items = iter(opened)
    head = list(itertools.islice(items, SAMPLE_FROM_ITEMS))
    sample = head[:: max(1, len(head) // SAMPLE_ITEMS)][:SAMPLE_ITEMS]
    within = None if follow_links else folder_of(opened)
    with _trial(recipe, storage_options, allow_private, within) as equipment:
        carried = sync(get_loop(), _fetch_together, equipment, sample)
        outcomes = [equipment.finish(fetched) for fetched in carried]
    peak_bytes = max((_decoded_bytes(fetched.payload) for fetched in carried), default=0)
    total = len(head) + sum(1 for _ in items)
    return estimate(total, recipe, outcomes, peak_bytes, threads or CPU_COUNT)


def estimate(total: int, recipe: Recipe, outcomes: Sequence[Outcome], peak_bytes: int, threads: int) -> Plan:
    """Judge a whole run by the Outcomes of a sample.

    Computing is divided among the threads; fetches overlap it, `FETCHES_PER_THREAD` at a time. The slower of the two
    sets the speed.

    Parameters
    ----------
    total : int
        Items in the collection.
    recipe : Recipe
    outcomes : sequence of Outcome
        Of the sample.
    peak_bytes : int
        Memory that the largest image of the sample needs while it is decoded.
    threads : int
        Cores that the run will have.
    """
    tried = max(1, len(outcomes))
    seconds: dict[str, float] = {
        stage: sum(outcome.seconds.get(stage, 0.0) for outcome in outcomes) / tried for stage in recipe.stages
    }
    computing_s = max(1e-6, sum(seconds.values()) - seconds["fetch"])
    speed = threads * min(1 / computing_s, FETCHES_PER_THREAD / max(1e-6, seconds["fetch"]))
    is_fetch_bound = seconds["fetch"] / FETCHES_PER_THREAD > computing_s
    bottleneck = "fetch" if is_fetch_bound else max(recipe.stages[1:], key=lambda stage: seconds[stage])
    stored = [outcome for outcome in outcomes if outcome.status == "stored"]
    return Plan(
        total=total,
        sampled=len(outcomes),
        failed=len(outcomes) - len(stored),
        seconds_by_stage=seconds,
        bytes_in=sum(outcome.bytes_in for outcome in outcomes) / tried,
        bytes_out=sum(outcome.bytes_out for outcome in stored) / max(1, len(stored)),
        peak_bytes=peak_bytes,
        threads=threads,
        images_per_second=speed,
        eta_seconds=total / speed,
        bottleneck=bottleneck,
        advice=ADVICE[bottleneck],
    )


async def _fetch_together(equipment: Equipment, items: Sequence[Item]) -> list[Carried]:
    return await asyncio.gather(*map(equipment.fetch, items))


@contextlib.contextmanager
def _trial(
    recipe: Recipe,
    storage_options: Mapping[str, Any] | None,
    allow_private: bool | None,
    within: str | None = None,
) -> Iterator[Equipment]:
    settings = Settings.from_environ()
    if allow_private is None:
        allow_private = settings.allow_private
    card = choose_model(recipe, settings)
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        policy = FetchPolicy(TRIAL_TIMEOUT_S, retries=0, allow_private=allow_private, within=within)
        job = Job("trial", "a sample", folder, recipe, policy)
        equipment = Equipment(job, card, storage_options)
        try:
            yield equipment
        finally:
            sync(get_loop(), equipment.aclose)


def _describe(image: Image.Image) -> str:
    return f"{image.width} × {image.height}"


def _decoded_bytes(data: object) -> int:
    try:
        image = open_image(data) if isinstance(data, bytes) else None
    except StageError:
        return 0
    return image.width * image.height * len(image.getbands()) if image else 0
