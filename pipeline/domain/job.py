"""One run of a Recipe over a collection, and how its images are asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Final, Literal, Self, TypeGuard

from pipeline.domain.checks import is_number, require_int_in, require_one_of, require_text, show_value
from pipeline.domain.item import ManifestColumns
from pipeline.domain.limits import ImageLimits
from pipeline.domain.recipe import Recipe
from pipeline.errors import RecipeError
from pipeline.urls import redact

Output = Literal["files", "webdataset"]
OUTPUTS: Final[tuple[Output, ...]] = ("files", "webdataset")

# A line break would begin another header.
_USER_AGENT: Final = re.compile(r"[!-~][ -~]{0,199}")
_JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """How the bytes of an image are asked for.

    Attributes
    ----------
    timeout_s : float
        Seconds for one whole answer, headers and body: more than 0, at most 3600. A web server that sends no byte for
        a third of it, its first included, is not waited for any longer.
    retries : int
        How often a failure that may pass is tried again, 0 to 100.
    max_bytes : int
        The most bytes that one image may have.
    connections_per_host : int
        Concurrent requests to one host, all workers together, or to one bucket from one worker: 1 to 1000.
    allow_private : bool
        Whether addresses that are not public (loopback, private networks) may be dialled.
    places : tuple of str or None
        What a source may begin with, where a stranger decides what is asked for; None for anything that the user
        can read.
    requests_per_second : float or None
        To one host, all workers together, redirects and repetitions counted: 0.001 to 10,000; None for as many as the
        connections allow. Buckets of object stores have no such limit.
    respect_robots : bool
        Whether an image fails whose server forbids its use by the header ``X-Robots-Tag``.
    user_agent : str or None
        Who asks, such as ``lab-crawler/1.0 (+https://lab.example/crawler)``: sent before our own name. At most 200
        printable letters of ASCII.
    within : str or None
        The local folder that links of its files must not lead out of; None for links to anywhere.

    Raises
    ------
    RecipeError
        If a field is out of range.
    """

    timeout_s: float = 30.0
    retries: int = 2
    max_bytes: int = 256 * 2**20
    connections_per_host: int = 16
    allow_private: bool = False
    places: tuple[str, ...] | None = None
    requests_per_second: float | None = None
    respect_robots: bool = True
    user_agent: str | None = None
    within: str | None = None

    def __post_init__(self) -> None:
        if self.places is not None:
            # JSON has no tuples.
            object.__setattr__(self, "places", tuple(self.places))
        if not is_number(self.timeout_s) or not 0 < self.timeout_s <= 3600:
            raise RecipeError(
                f"timeout is {show_value(self.timeout_s)}; allowed is more than 0 and at most 3600 seconds"
            )
        require_int_in("retries", self.retries, 0, 100)
        require_int_in("max_bytes", self.max_bytes, 1, 2**40)
        require_int_in("connections_per_host", self.connections_per_host, 1, 1000)
        require_one_of("allow_private", self.allow_private, (True, False))
        rate = self.requests_per_second
        if rate is not None and (not is_number(rate) or not 0.001 <= rate <= 10_000):
            raise RecipeError(f"requests_per_second is {show_value(rate)}; allowed is a number from 0.001 to 10000")
        require_one_of("respect_robots", self.respect_robots, (True, False))
        who = self.user_agent
        if who is not None and (not isinstance(who, str) or not _USER_AGENT.fullmatch(who)):
            raise RecipeError(
                f"user_agent is {show_value(who)}; allowed is up to 200 printable letters of ASCII, no space first"
            )

    @property
    def idle_s(self) -> float:
        """Seconds without a byte after which a web server is not waited for any longer."""
        return self.timeout_s / 3


@dataclass(frozen=True, slots=True, repr=False)
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
    force : bool
        Whether images are made again that are at the destination already, of the same bytes by the same Recipe.
    deduplicate : bool
        Whether of images with the same bytes only the first is made, for all of them.
    limits : ImageLimits
        What one image may take.
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
    force: bool = False
    deduplicate: bool = False
    limits: ImageLimits = field(default_factory=ImageLimits)

    def __post_init__(self) -> None:
        for name in ("collection", "destination", "url_column"):
            require_text(name, getattr(self, name))
        for name in ("key_column", "hash_column"):
            if getattr(self, name) is not None:
                require_text(name, getattr(self, name))
        require_one_of("output", self.output, OUTPUTS)
        for name in ("force", "deduplicate"):
            require_one_of(name, getattr(self, name), (True, False))
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

    def __repr__(self) -> str:
        # A collection may be one signed URL.
        return f"Job({self.id!r}, {redact(self.collection)!r}, {redact(self.destination)!r})"

    @property
    def columns(self) -> ManifestColumns:
        """The manifest's columns that are read."""
        return ManifestColumns(self.url_column, self.key_column, self.hash_column, tuple(self.carry_columns))

    def to_json(self) -> str:
        """Write the job as JSON, as its hash in Redis keeps it."""
        values = {name: getattr(self, name) for name in _FIELDS}
        values |= {"recipe": self.recipe.to_mapping(), "fetch": asdict(self.fetch), "limits": asdict(self.limits)}
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
            # An earlier release had none.
            limits = ImageLimits(**values.pop("limits", {}))
            return cls(**values, recipe=recipe, fetch=fetch, limits=limits)
        except RecipeError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RecipeError(f"cannot read a job from its JSON: {type(error).__name__}: {error}") from error


_FIELDS: Final = tuple(field.name for field in fields(Job))


def is_job_id(text: object) -> TypeGuard[str]:
    """Whether a text can be a job's id."""
    return isinstance(text, str) and _JOB_ID.fullmatch(text) is not None
