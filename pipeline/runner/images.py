"""One image through the stages: the same steps for a batch on a worker, for `plan` and for `preview`."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self

from pipeline.catalogue import EnhancementModel, ModelCard, load_model, on_this_machine
from pipeline.domain import UNKNOWN_VERSION, Failure, Item, Job, Outcome, SourceVersion, Stage
from pipeline.errors import RowError, TooHeavyError
from pipeline.stages.enhance import enhance_image
from pipeline.stages.fetch import Fetched, Fetcher, Unfetched
from pipeline.stages.lender import Lender
from pipeline.stages.picture import Picture
from pipeline.stages.promise import parse_hash, require_hash
from pipeline.stages.resize import resize_image
from pipeline.stages.store import Ready, Stored, prepare_image, put_image, write_image
from pipeline.urls import OBJECT_STORES, redact, scheme_of

# A backend's first import and its compiling are not for two threads at once.
_LOADING: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Carried:
    """One Item between two stages, with what it has become so far."""

    item: Item
    payload: bytes | Picture | Ready | Stored | None = None
    bytes_in: int = 0
    attempts: int = 1
    seconds: Mapping[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    robots: str = ""
    source: SourceVersion = UNKNOWN_VERSION
    is_unchanged: bool = False
    duplicate_of: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be done with it: it failed, or what it would become is stored already."""
        return self.failure is not None or self.is_unchanged or bool(self.duplicate_of)

    def __sizeof__(self) -> int:
        # Dask spills and schedules by this.
        if isinstance(self.payload, bytes):
            return 500 + len(self.payload)
        if isinstance(self.payload, Picture):
            image = self.payload.image
            return 500 + image.width * image.height * len(image.getbands())
        return 500


class Trial:
    """A with-block that turns the error of one image in one stage into a Failure, and takes the time.

    This is where any error of an image is caught: what it does not know becomes a failed image too, and the run
    goes on.
    """

    def __init__(self, stage: Stage, item: Item) -> None:
        self.stage = stage
        self._item = item
        self.seconds = 0.0
        self.failure: Failure | None = None

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.seconds = time.perf_counter() - self._started
        if not isinstance(error, Exception):
            return False
        if isinstance(error, MemoryError):
            error = TooHeavyError("there is not enough memory for it")
        self.failure = Failure.from_error(self.stage, error, subject=redact(self._item.url))
        return True

    def conclude(self, carried: Carried, payload: bytes | Picture | Ready | Stored | None, **changes: Any) -> Carried:
        """Return `carried` as this stage leaves it."""
        return replace(
            carried,
            payload=None if self.failure else payload,
            # A stage may take two steps.
            seconds={**carried.seconds, self.stage: carried.seconds.get(self.stage, 0.0) + self.seconds},
            failure=self.failure,
            **changes,
        )


def shared_model(card: ModelCard, threads: int) -> EnhancementModel:
    """Load a model once a worker, rather than once a job, whose plugins may be set up at the same moment."""
    with _LOADING:
        return _load_once(card, threads)


@functools.lru_cache(maxsize=4)
def _load_once(card: ModelCard, threads: int) -> EnhancementModel:
    return load_model(on_this_machine(card), threads)


class Equipment:
    """What a worker needs to handle the images of one job: made once a worker, used for every image.

    Parameters
    ----------
    job : Job
    card : ModelCard, optional
        The Recipe's model; None if it asks for none.
    storage_options : mapping, optional
        As in fsspec, for the source and the destination.
    threads : int
        How many images are enhanced at once; 0 on a worker that enhances none, and needs no model.
    lender : Lender, optional
        Who counts the requests to web servers, where other processes ask them too.

    Raises
    ------
    ModelError
        If the model's file is missing, altered or unusable.
    """

    def __init__(
        self,
        job: Job,
        card: ModelCard | None = None,
        storage_options: Mapping[str, Any] | None = None,
        threads: int = 1,
        lender: Lender | None = None,
    ) -> None:
        self.job = job
        self.storage_options = storage_options
        self.fetcher = Fetcher(job.fetch, storage_options, lender)
        self.card = card
        self.model: EnhancementModel | None = shared_model(card, threads) if card and threads else None

    async def fetch(self, item: Item) -> Carried:
        """Ask for the bytes of `item`, unless its image was made of those that the source has."""
        data, attempts, robots = None, 1, ""
        source, is_unchanged = SourceVersion(item.fingerprint), False
        known = item.stored_from.fingerprint if item.stored_from and not item.fingerprint else ""
        with Trial("fetch", item) as trial:
            if item.problem:
                raise RowError(item.problem)
            # What is promised is looked at first: of nonsense, nothing need be fetched.
            promise = parse_hash(item.expected_hash) if item.expected_hash else None
            answer = await self.fetcher.try_fetch(item.url, known, wants_fingerprint=not item.fingerprint)
            attempts, robots = answer.attempts, answer.robots
            if isinstance(answer, Unfetched):
                raise answer.error
            if isinstance(answer, Fetched):
                data = answer.data
                source = SourceVersion(item.fingerprint or answer.fingerprint)
            elif item.stored_from:
                source, is_unchanged = item.stored_from, True
            if promise and data is not None:
                # Off the loop, which others fetch on.
                await asyncio.to_thread(require_hash, data, *promise)
        return trial.conclude(
            Carried(item),
            data,
            bytes_in=len(data or b""),
            attempts=attempts,
            robots=robots,
            source=source,
            is_unchanged=is_unchanged,
        )

    def identify(self, carried: Carried) -> Carried:
        """Tell by their hash whether the bytes are those that the stored image was made of."""
        source, is_unchanged, data = carried.source, False, carried.payload
        with Trial("fetch", carried.item) as trial:
            assert isinstance(data, bytes)
            source = replace(source, sha256=hashlib.sha256(data).hexdigest())
            before = carried.item.stored_from
            is_unchanged = before is not None and before.sha256 == source.sha256
        return trial.conclude(carried, None if is_unchanged else data, source=source, is_unchanged=is_unchanged)

    def resize(self, carried: Carried) -> Carried:
        """Decode the bytes and bring the image to the Recipe's size."""
        picture = None
        with Trial("resize", carried.item) as trial:
            assert isinstance(carried.payload, bytes)
            scale = self.card.scale if self.card else 1
            picture = resize_image(carried.payload, self.job.recipe, model_scale=scale, limits=self.job.limits)
        return trial.conclude(carried, picture)

    def enhance(self, carried: Carried) -> Carried:
        """Run the model on the image."""
        picture = None
        with Trial("enhance", carried.item) as trial:
            assert isinstance(carried.payload, Picture)
            assert self.model is not None
            picture = enhance_image(carried.payload, self.model, self.job.recipe.strength)
        return trial.conclude(carried, picture)

    def encode(self, carried: Carried) -> Carried:
        """Encode the image, for `write` or `put`."""
        ready = None
        with Trial("store", carried.item) as trial:
            assert isinstance(carried.payload, Picture)
            ready = prepare_image(carried.payload, carried.item.key, self.job.destination, self.job.recipe)
        return trial.conclude(carried, ready)

    def write(self, carried: Carried) -> Carried:
        """Write the encoded image to the destination."""
        stored = None
        with Trial("store", carried.item) as trial:
            assert isinstance(carried.payload, Ready)
            stored = write_image(carried.payload, self.job.destination, self.storage_options)
        return trial.conclude(carried, stored)

    def write_batch(self, batch: Sequence[Carried]) -> list[Outcome]:
        """Write the encoded images of a batch; say what became of every Item."""
        return [self.conclude(carried if carried.is_over else self.write(carried)) for carried in batch]

    @property
    def puts_together(self) -> bool:
        """Whether the images of a batch are put at once, off the worker's threads, since a store takes its time."""
        return self.job.output == "files" and scheme_of(self.job.destination) in OBJECT_STORES

    @property
    def computing_steps(self) -> Sequence[tuple[Stage, Callable[[Carried], Carried]]]:
        """What is to be done with the bytes of an image before it is written, with the stages that the Recipe has."""
        step_by_stage = {"resize": self.resize, "enhance": self.enhance, "store": self.encode}
        return [(stage, step_by_stage[stage]) for stage in self.job.recipe.stages if stage != "fetch"]

    def timeout_s(self, stage: Stage) -> float:
        """Return the seconds that one image may take in a stage; in ``store``, to be encoded.

        What the Recipe makes large takes longer, and is not the image's fault.
        """
        recipe = self.job.recipe
        unhurried_pixels = 1e6 if stage == "enhance" else 4e6
        return self.job.limits.timeout_s * max(1.0, recipe.max_width * recipe.max_height / unhurried_pixels)

    async def put(self, carried: Carried) -> Carried:
        """Put the encoded image into the object store that the destination is."""
        stored = None
        with Trial("store", carried.item) as trial:
            assert isinstance(carried.payload, Ready)
            stored = await put_image(carried.payload, self.job.destination, self.storage_options)
        return trial.conclude(carried, stored)

    async def put_batch(self, batch: Sequence[Carried]) -> list[Outcome]:
        """Put the encoded images of a batch; say what became of every Item."""

        async def put(carried: Carried) -> Carried:
            return carried if carried.is_over else await self.put(carried)

        return [self.conclude(carried) for carried in await asyncio.gather(*map(put, batch))]

    def finish(self, fetched: Carried) -> Outcome:
        """Take one fetched image through the other stages, here and now."""
        carried = fetched
        for step in (*(step for _, step in self.computing_steps), self.write):
            carried = carried if carried.is_over else step(carried)
        return self.conclude(carried)

    def conclude(self, carried: Carried) -> Outcome:
        """Say what became of the image, after its last stage; where a skipped one is, the driver knows."""
        stored = carried.payload if isinstance(carried.payload, Stored) else None
        return Outcome(
            item=carried.item,
            status="stored" if stored else "failed" if carried.failure else "skipped",
            output=stored.output if stored else "",
            width=stored.width if stored else 0,
            height=stored.height if stored else 0,
            channels=stored.channels if stored else 0,
            bytes_in=carried.bytes_in,
            bytes_out=stored.bytes_out if stored else 0,
            sha256=stored.sha256 if stored else "",
            attempts=carried.attempts,
            seconds=carried.seconds,
            failure=carried.failure,
            model=self.card.label if self.card else "",
            finished_at=time.time(),
            robots=carried.robots,
            source=carried.source,
            duplicate_of=carried.duplicate_of,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self.fetcher.aclose()
