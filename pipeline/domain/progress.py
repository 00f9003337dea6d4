"""How a job stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

JobStatus = Literal["queued", "processing", "stalled", "completed", "failed", "cancelled"]
FINAL_STATUSES: Final = frozenset({"completed", "failed", "cancelled"})


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
    duplicates : int
        Images that are of the same bytes as another one of the job.
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
    duplicates: int = 0
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
