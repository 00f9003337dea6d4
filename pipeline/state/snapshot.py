"""A Progress as flat camelCase fields: what a job's hash keeps, what its channel carries and what clients are sent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, get_args

from pipeline.domain import Job, JobStatus, Progress, Result, Stage
from pipeline.errors import SealError, StateError
from pipeline.sealing import Seal, require_open, seal_collection
from pipeline.urls import redact

FieldValue = int | float | str

_TEXTS: Final = {
    "id": "job_id",
    "status": "status",
    "error": "error",
    "createdAt": "created_at",
    "startedAt": "started_at",
    "completedAt": "completed_at",
}
_COUNTS: Final = {
    "total": "total",
    "stored": "stored",
    "skipped": "skipped",
    "failed": "failed",
    "bytesIn": "bytes_in",
    "bytesOut": "bytes_out",
    "duplicates": "duplicates",
    "version": "version",
}
_MEASURES: Final = {
    "seconds": "seconds",
    "imagesPerSecond": "images_per_second",
    "etaSeconds": "eta_seconds",
}
# `stored` counts Outcomes; what has left the last stage, failed or not, is `written`.
_DONE: Final[dict[str, Stage]] = {"fetched": "fetch", "resized": "resize", "enhanced": "enhance", "written": "store"}
_FAILED: Final[dict[str, Stage]] = {
    "failedFetch": "fetch",
    "failedResize": "resize",
    "failedEnhance": "enhance",
    "failedStore": "store",
}
_SECONDS: Final[dict[str, Stage]] = {
    "secondsFetch": "fetch",
    "secondsResize": "resize",
    "secondsEnhance": "enhance",
    "secondsStore": "store",
}


# How many failed, by the error's class: JSON's text in a hash, its object in a message.
_ERRORS: Final = "errors"

_RESULT: Final = {"resultUrl": "url", "width": "width", "height": "height", "channels": "channels"}


def to_fields(progress: Progress) -> dict[str, FieldValue]:
    """Flatten a snapshot; what is not known (a total, an ETA, a stage that the Recipe has not) is left out.

    Parameters
    ----------
    progress : Progress

    Returns
    -------
    dict of str to int, float or str
        Fit for JSON: finite numbers, text that UTF-8 can encode. ``progress`` is 0 to 100, to one decimal.
    """
    values: dict[str, Any] = {
        name: getattr(progress, attribute)
        for attributes in (_TEXTS, _COUNTS, _MEASURES)
        for name, attribute in attributes.items()
    }
    if progress.result:
        values |= {name: getattr(progress.result, attribute) for name, attribute in _RESULT.items()}
    values["progress"] = round(progress.percent, 1)
    for stages, by_stage in (
        (_DONE, progress.done_by_stage),
        (_FAILED, progress.failed_by_stage),
        (_SECONDS, progress.seconds_by_stage),
    ):
        values |= {name: by_stage.get(stage) for name, stage in stages.items()}
    values[_ERRORS] = json.dumps(dict(progress.failed_by_error))
    return {name: escape_surrogates(value) for name, value in values.items() if _is_known(value)}


def from_fields(fields: Mapping[str, Any]) -> Progress:
    """Read what `to_fields` wrote, be it JSON's numbers or a hash's strings; other fields are ignored.

    Parameters
    ----------
    fields : mapping of str to int, float or str

    Returns
    -------
    Progress

    Raises
    ------
    StateError
        If ``id`` is missing or a field has a value that means nothing.
    """
    if "id" not in fields:
        raise StateError(f"cannot read a job's state: no field 'id' in {sorted(fields)}")
    if fields.get("status", "queued") not in get_args(JobStatus):
        raise _unusable(fields, "status")
    values: dict[str, Any] = {attribute: fields[name] for name, attribute in _TEXTS.items() if name in fields}
    for attributes, kind in ((_COUNTS, int), (_MEASURES, float)):
        values |= {attribute: _number(fields, name, kind) for name, attribute in attributes.items() if name in fields}
    if "resultUrl" in fields:
        sizes = {name: _number(fields, name, int) for name in ("width", "height", "channels")}
        values["result"] = Result(fields["resultUrl"], **sizes)
    return Progress(
        **values,
        done_by_stage={stage: _number(fields, name, int) for name, stage in _DONE.items() if name in fields},
        failed_by_stage={stage: _number(fields, name, int) for name, stage in _FAILED.items() if name in fields},
        failed_by_error=_counts(fields),
        seconds_by_stage={stage: _number(fields, name, float) for name, stage in _SECONDS.items() if name in fields},
    )


def escape_surrogates(value: FieldValue) -> FieldValue:
    """Return text that UTF-8 can encode: bytes of a file's name that cannot be decoded are shown as escapes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def flatten(fields: Mapping[str, FieldValue]) -> list[FieldValue]:
    """Return name, value, name, value …, as Redis takes them, without the times that are not set.

    So that a time which the hash has already stays.
    """
    return [part for name, value in fields.items() if value != "" or not name.endswith("At") for part in (name, value)]


def fields_of_new(job: Job, seal: Seal) -> list[FieldValue]:
    """Return the hash of a job that has not begun, flat; what is secret of its collection is sealed."""
    progress = Progress(job.id, done_by_stage=dict.fromkeys(job.recipe.stages, 0))
    # Whoever follows a job sees these.
    places = {name: escape_surrogates(redact(getattr(job, name))) for name in ("collection", "destination")}
    recipe = json.dumps(job.recipe.to_mapping())
    return flatten(to_fields(progress) | places | {"recipe": recipe, "spec": spec_of(job, seal)})


def spec_of(job: Job, seal: Seal) -> str:
    """Return what a job is to do, as its hash keeps it."""
    return seal_collection(job, seal).to_json()


def job_of(spec: str, seal: Seal) -> Job:
    """Read what `spec_of` wrote; a collection that was sealed with another key stays so, for whoever only looks on.

    Raises
    ------
    RecipeError
        If it is something else, or of a release with other fields.
    """
    job = Job.from_json(spec)
    try:
        return require_open(job, seal)
    except SealError:
        return job


def _is_known(value: FieldValue | None) -> bool:
    # JSON has no infinity and no NaN.
    return value is not None and (not isinstance(value, float) or math.isfinite(value))


def _number(fields: Mapping[str, Any], name: str, kind: type[int] | type[float]) -> Any:
    try:
        return kind(fields[name])
    except (TypeError, ValueError):
        raise _unusable(fields, name) from None


def _counts(fields: Mapping[str, Any]) -> dict[str, int]:
    found = fields.get(_ERRORS, {})
    try:
        counts = json.loads(found) if isinstance(found, str) else found
        return {str(name): int(count) for name, count in counts.items()}
    except (AttributeError, TypeError, ValueError):
        raise _unusable(fields, _ERRORS) from None


def _unusable(fields: Mapping[str, Any], name: str) -> StateError:
    return StateError(f"cannot read the state of job {fields['id']!r}: its field {name!r} is {fields[name]!r}")
