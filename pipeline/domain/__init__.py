"""The words of the pipeline as frozen dataclasses: no I/O, nothing heavy."""

from __future__ import annotations

from pipeline.domain.checks import show_value
from pipeline.domain.item import UNKNOWN_VERSION, Item, ManifestColumns, SourceVersion
from pipeline.domain.job import OUTPUTS, FetchPolicy, Job, Output, is_job_id
from pipeline.domain.limits import ImageLimits
from pipeline.domain.outcome import IMAGE_FIELDS, Failure, Outcome
from pipeline.domain.progress import FINAL_STATUSES, JobStatus, Progress, Result
from pipeline.domain.recipe import FITS, FORMATS, MAX_SIDE, Fit, Format, Recipe
from pipeline.domain.stage import STAGES, Stage

__all__ = [
    "FINAL_STATUSES",
    "FITS",
    "FORMATS",
    "IMAGE_FIELDS",
    "MAX_SIDE",
    "OUTPUTS",
    "STAGES",
    "UNKNOWN_VERSION",
    "Failure",
    "FetchPolicy",
    "Fit",
    "Format",
    "ImageLimits",
    "Item",
    "Job",
    "JobStatus",
    "ManifestColumns",
    "Outcome",
    "Output",
    "Progress",
    "Recipe",
    "Result",
    "SourceVersion",
    "Stage",
    "is_job_id",
    "show_value",
]
