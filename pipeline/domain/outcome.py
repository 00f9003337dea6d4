"""What became of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from pipeline.domain.item import UNKNOWN_VERSION, Item, SourceVersion
from pipeline.domain.stage import Stage
from pipeline.errors import PipelineError, remedy_for


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


# What an Outcome tells of the stored image.
IMAGE_FIELDS: Final = ("output", "width", "height", "channels", "bytes_out", "sha256")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one Item: one row of the ledger.

    Attributes
    ----------
    item : Item
    status : {"stored", "skipped", "failed"}
    output : str
        The stored image's path or URL, ``tar://MEMBER::SHARD`` if it is in a shard; if it was skipped, that of the
        image which is there already; empty if it failed.
    width, height, channels : int
        That image's size in pixels and its channels, alpha included; 0 if there is none.
    bytes_in, bytes_out : int
        What was fetched, and the size of that image.
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
    robots : str
        What the server's header ``X-Robots-Tag`` said; empty without one.
    source : SourceVersion
        The bytes that it was made of.
    duplicate_of : str
        The key of the image of this job that was made of the same bytes before; empty for the first one.
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
    robots: str = ""
    source: SourceVersion = UNKNOWN_VERSION
    duplicate_of: str = ""
