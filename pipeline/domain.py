"""The words of the pipeline as frozen dataclasses: no I/O, nothing heavy."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal, Self, TypeGuard

from pipeline.errors import PipelineError, RecipeError, remedy_for

Stage = Literal["fetch", "resize", "enhance", "store"]
STAGES: Final[tuple[Stage, ...]] = ("fetch", "resize", "enhance", "store")

Fit = Literal["inside", "cover", "contain", "fill"]
Format = Literal["jpeg", "webp", "avif", "png", "same"]
Output = Literal["files", "webdataset"]
FITS: Final[tuple[Fit, ...]] = ("inside", "cover", "contain", "fill")
FORMATS: Final[tuple[Format, ...]] = ("jpeg", "webp", "avif", "png", "same")
OUTPUTS: Final[tuple[Output, ...]] = ("files", "webdataset")

# WebP cannot be larger than this on a side; the other formats can.
MAX_SIDE: Final = 16383

JobStatus = Literal["queued", "processing", "stalled", "completed", "failed", "cancelled"]
FINAL_STATUSES: Final = frozenset({"completed", "failed", "cancelled"})

_JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a collection.

    Attributes
    ----------
    key : str
        Stable, unique in its job and safe as a relative file name: the output's name without its suffix.
    url : str
        Where its bytes are: an http(s) URL, a local path, or another URL that fsspec opens.
    expected_hash : str
        What its manifest promises about its bytes, as written there; empty for nothing.
    extra : tuple of (str, str or None)
        Further columns of its manifest, by name, as text.
    problem : str
        Why its manifest's row names no image; empty if it does.
    """

    key: str
    url: str
    expected_hash: str = ""
    extra: tuple[tuple[str, str | None], ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to every image; checked when made.

    Attributes
    ----------
    max_width, max_height : int
        The box that the result fits, in pixels, 1 to 16383.
    fit : {"inside", "cover", "contain", "fill"}
        How an image meets the box, as CSS and sharp define it: ``inside`` keeps the aspect and is at most the box;
        ``cover`` fills the box and crops what sticks out, centred; ``contain`` is ``inside`` on a canvas of the
        box's size; ``fill`` stretches.
    enhance : str or None
        A model's name in the catalogue, or None for no enhancement.
    strength : float
        0 to 1: how much of the enhanced image is blended with the one that would be stored without the model.
    format : {"jpeg", "webp", "avif", "png", "same"}
        The output's format; ``same`` keeps the source's.
    quality : int
        1 to 100, for the lossy formats.
    enlarge : bool
        Whether an image smaller than the box is made larger.
    background : str
        ``#rrggbb``: the canvas of ``contain``, and what shows through where the format has no alpha.
    keep_copyright : bool
        Whether the EXIF tags Artist and Copyright are kept; all other metadata is always removed.

    Raises
    ------
    RecipeError
        If a field is out of range. The message names the field, its value and what is allowed.
    """

    max_width: int = 1024
    max_height: int = 1024
    fit: Fit = "inside"
    enhance: str | None = "restore"
    strength: float = 1.0
    format: Format = "jpeg"
    quality: int = 80
    enlarge: bool = False
    background: str = "#ffffff"
    keep_copyright: bool = False

    def __post_init__(self) -> None:
        _require_int_in("max_width", self.max_width, 1, MAX_SIDE)
        _require_int_in("max_height", self.max_height, 1, MAX_SIDE)
        _require_int_in("quality", self.quality, 1, 100)
        _require_one_of("fit", self.fit, FITS)
        _require_one_of("format", self.format, FORMATS)
        for name in ("enlarge", "keep_copyright"):
            _require_one_of(name, getattr(self, name), (True, False))
        if not isinstance(self.background, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", self.background):
            raise RecipeError(f"background is {show_value(self.background)}; allowed is #rrggbb, such as #ffffff")
        if not _is_number(self.strength) or not 0 <= self.strength <= 1:
            raise RecipeError(f"strength is {show_value(self.strength)}; allowed is a number from 0 to 1")
        # 1 and 1.0 are one Recipe, with one fingerprint.
        object.__setattr__(self, "strength", float(self.strength))
        if self.enhance is not None and (not isinstance(self.enhance, str) or not self.enhance):
            raise RecipeError(f"enhance is {show_value(self.enhance)}; allowed is a model's name, or none")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that this Recipe asks for, in their order."""
        return tuple(stage for stage in STAGES if stage != "enhance" or self.enhance)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that are equal for equal Recipes, on any machine and version of Python."""
        canonical = json.dumps(self.to_mapping(), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()

    def to_mapping(self) -> dict[str, Any]:
        """Return the fields and their values, as `from_mapping` takes them."""
        return {name: getattr(self, name) for name in _RECIPE_FIELDS}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Make a Recipe of a mapping, such as a TOML file's table.

        Raises
        ------
        RecipeError
            If a name is unknown or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise RecipeError(f"a recipe has no field {name!r}; its fields are {', '.join(known)}")
        return cls(**values)


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """How the bytes of an image are asked for.

    Attributes
    ----------
    timeout_s : float
        Seconds for one whole answer, headers and body.
    retries : int
        How often a failure that may pass is tried again.
    max_bytes : int
        The most bytes that one image may have.
    connections_per_host : int
        Concurrent requests to one host from one worker.
    allow_private : bool
        Whether addresses that are not public (loopback, private networks) may be dialled.
    places : tuple of str or None
        What a source may begin with, where a stranger decides what is asked for; None for anything that the user
        can read.
    """

    timeout_s: float = 30.0
    retries: int = 2
    max_bytes: int = 256 * 2**20
    connections_per_host: int = 16
    allow_private: bool = False
    places: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.places is not None:
            # JSON has no tuples.
            object.__setattr__(self, "places", tuple(self.places))
        if not _is_number(self.timeout_s) or not 0 < self.timeout_s <= 3600:
            raise RecipeError(
                f"timeout is {show_value(self.timeout_s)}; allowed is more than 0 and at most 3600 seconds"
            )
        _require_int_in("retries", self.retries, 0, 100)
        _require_int_in("max_bytes", self.max_bytes, 1, 2**40)
        _require_int_in("connections_per_host", self.connections_per_host, 1, 1000)
        _require_one_of("allow_private", self.allow_private, (True, False))


@dataclass(frozen=True, slots=True)
class ManifestColumns:
    """Which of a manifest's columns say what.

    Attributes
    ----------
    url : str
        URLs or paths.
    key : str or None
        The names of the results; None: they are made of the URLs.
    hash : str or None
        What the fetched bytes are to be; None: anything.
    carry : tuple of str
        What else is written into the ledger.
    """

    url: str = "url"
    key: str | None = None
    hash: str | None = None
    carry: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are to be read: the URL's, the key's and the hash's if they are named, and the rest."""
        return tuple(name for name in (self.url, self.key, self.hash, *self.carry) if name is not None)


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one Recipe over one collection to one destination.

    Attributes
    ----------
    id : str
        Letters, digits, ``.``, ``_`` and ``-``, at most 100.
    collection : str
        What the user pointed at. A list given in Python is kept as a manifest beside the ledger.
    destination : str
        A folder, or a URL that fsspec writes to.
    recipe : Recipe
    fetch : FetchPolicy
    url_column, key_column, hash_column, carry_columns
        The manifest's columns, see `ManifestColumns`.
    output : {"files", "webdataset"}
        Whether each image is a file, or many are in each of a few shards, tar files that WebDataset reads.
    """

    id: str
    collection: str
    destination: str
    recipe: Recipe = field(default_factory=Recipe)
    fetch: FetchPolicy = field(default_factory=FetchPolicy)
    url_column: str = "url"
    key_column: str | None = None
    hash_column: str | None = None
    carry_columns: Sequence[str] = ()
    output: Output = "files"

    def __post_init__(self) -> None:
        for name in ("collection", "destination", "url_column"):
            _require_text(name, getattr(self, name))
        for name in ("key_column", "hash_column"):
            if getattr(self, name) is not None:
                _require_text(name, getattr(self, name))
        _require_one_of("output", self.output, OUTPUTS)
        carry = self.carry_columns
        if isinstance(carry, str) or len({*carry}) < len(carry) or not all(isinstance(name, str) for name in carry):
            raise RecipeError(f"carry_columns is {show_value(carry)}; allowed are the names of columns, each once")
        # JSON has no tuples.
        object.__setattr__(self, "carry_columns", tuple(carry))
        if not is_job_id(self.id):
            raise RecipeError(
                f"a job's id is {show_value(self.id)}; allowed are up to 100 letters, digits, '.', '_' and '-', "
                "the first a letter or a digit"
            )

    @property
    def columns(self) -> ManifestColumns:
        """The manifest's columns that are read."""
        return ManifestColumns(self.url_column, self.key_column, self.hash_column, tuple(self.carry_columns))

    def to_json(self) -> str:
        """Write the job as JSON, as its hash in Redis keeps it."""
        values = {name: getattr(self, name) for name in _JOB_FIELDS}
        values |= {"recipe": self.recipe.to_mapping(), "fetch": asdict(self.fetch)}
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        RecipeError
            If it is something else, or of a release with other fields.
        """
        try:
            values = json.loads(text)
            recipe = Recipe.from_mapping(values.pop("recipe"))
            fetch = FetchPolicy(**values.pop("fetch"))
            return cls(**values, recipe=recipe, fetch=fetch)
        except RecipeError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RecipeError(f"cannot read a job from its JSON: {type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an image failed: strings only, so that it crosses processes and JSON."""

    stage: Stage
    error: str
    message: str

    @classmethod
    def from_error(cls, stage: Stage, error: BaseException, subject: str) -> Self:
        """Describe an error that one image, the `subject`, raised in `stage`."""
        message = str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
        return cls(stage, type(error).__name__, message if subject in message else f"{subject}: {message}")

    @property
    def remedy(self) -> str:
        """What a user can do about it; empty if nothing is known."""
        return remedy_for(self.error)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one Item: one row of the ledger.

    Attributes
    ----------
    item : Item
    status : {"stored", "skipped", "failed"}
    output : str
        The stored image's path or URL, ``tar://MEMBER::SHARD`` if it is in a shard; empty unless stored.
    width, height, channels : int
        The stored image's size in pixels and its channels, alpha included; 0 unless stored.
    bytes_in, bytes_out : int
        What was fetched and what was stored.
    sha256 : str
        Of the stored bytes.
    attempts : int
        How often the source was asked.
    seconds : mapping of str to float
        Seconds that each stage took, by stage.
    failure : Failure or None
        Set if and only if `status` is ``failed``.
    model : str
        The enhancement model and the start of its hash, ``name@1a2b3c4d``; empty without one.
    finished_at : float
        Seconds since the epoch.
    """

    item: Item
    status: Literal["stored", "skipped", "failed"]
    output: str = ""
    width: int = 0
    height: int = 0
    channels: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    sha256: str = ""
    attempts: int = 1
    seconds: Mapping[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    model: str = ""
    finished_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """The stored image of a Job of one image.

    Attributes
    ----------
    url : str
        Its path or URL.
    width, height : int
        Pixels.
    channels : int
        1 to 4: grey or colour, each with or without alpha.
    """

    url: str
    width: int
    height: int
    channels: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A snapshot of a Job.

    Attributes
    ----------
    job_id : str
    status : {"queued", "processing", "stalled", "completed", "failed", "cancelled"}
    total : int or None
        Items in the collection; None until it has been counted.
    stored, skipped, failed : int
        Outcomes so far, those of earlier runs of the same job included.
    done_by_stage : mapping of str to int
        Items that have left each stage, failed or not; only the stages that the Recipe asks for.
    failed_by_stage : mapping of str to int
    failed_by_error : mapping of str to int
        By the name of the error's class.
    seconds_by_stage : mapping of str to float
        Seconds of work in each stage, summed over images.
    bytes_in, bytes_out : int
    seconds : float
        Since this run began to process.
    images_per_second : float
        Of the last seconds while it runs; of the whole run once it has ended.
    eta_seconds : float or None
        Seconds that the rest will take at that speed.
    error : str
        Why the whole job failed; empty otherwise.
    result : Result or None
        The stored image, if the collection is of one image.
    created_at, started_at, completed_at : str
        ISO 8601 in UTC; empty if not yet.
    version : int
        Grows with every snapshot that is published.
    """

    job_id: str
    status: JobStatus = "queued"
    total: int | None = None
    stored: int = 0
    skipped: int = 0
    failed: int = 0
    done_by_stage: Mapping[str, int] = field(default_factory=dict)
    failed_by_stage: Mapping[str, int] = field(default_factory=dict)
    failed_by_error: Mapping[str, int] = field(default_factory=dict)
    seconds_by_stage: Mapping[str, float] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
    eta_seconds: float | None = None
    error: str = ""
    result: Result | None = None
    created_at: str = ""
    started_at: str = ""
    completed_at: str = ""
    version: int = 0

    @property
    def done(self) -> int:
        """Items with an Outcome."""
        return self.stored + self.skipped + self.failed

    @property
    def percent(self) -> float:
        """0 to 100."""
        if self.total is None:
            return 0.0
        return 100.0 * self.done / self.total if self.total else 100.0

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will come of this run: completed, failed or cancelled."""
        return self.status in FINAL_STATUSES


# `asdict` copies every value, and looks the fields up each time.
_RECIPE_FIELDS: Final = tuple(field.name for field in fields(Recipe))
_JOB_FIELDS: Final = tuple(field.name for field in fields(Job))


def is_job_id(text: object) -> TypeGuard[str]:
    """Whether a text can be a job's id."""
    return isinstance(text, str) and _JOB_ID.fullmatch(text) is not None


def show_value(value: object) -> str:
    """Show a value in a message, however large it is."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 120
    return shortener.repr(value)


def _require_int_in(name: str, value: object, lowest: int, highest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise RecipeError(f"{name} is {show_value(value)}; allowed is a whole number from {lowest} to {highest}")


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise RecipeError(f"{name} is {show_value(value)}; allowed is a text that is not empty")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require_one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise RecipeError(f"{name} is {show_value(value)}; allowed is {', '.join(map(str, allowed))}")
