from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import STAGES, JobStatus, Progress, Result
from pipeline.errors import StateError
from pipeline.state.snapshot import flatten, from_fields, to_fields

counts = st.integers(min_value=0, max_value=2**62)
measures = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
stages = st.sampled_from(STAGES)
progresses = st.builds(
    Progress,
    job_id=st.text(min_size=1),
    status=st.sampled_from(get_args(JobStatus)),
    total=st.none() | counts,
    stored=counts,
    skipped=counts,
    failed=counts,
    done_by_stage=st.dictionaries(stages, counts),
    failed_by_stage=st.dictionaries(stages, counts),
    failed_by_error=st.dictionaries(st.sampled_from(["MissingError", "DecodeError"]), counts),
    seconds_by_stage=st.dictionaries(stages, measures),
    bytes_in=counts,
    bytes_out=counts,
    seconds=measures,
    images_per_second=measures,
    eta_seconds=st.none() | measures,
    error=st.text(),
    result=st.none() | st.builds(Result, st.text(), counts, counts, counts),
    created_at=st.text(),
    started_at=st.text(),
    completed_at=st.text(),
    version=counts,
)


@given(progresses)
def test_a_snapshot_survives_json(progress: Progress) -> None:
    assert from_fields(json.loads(json.dumps(to_fields(progress), allow_nan=False))) == progress


@given(progresses)
def test_a_snapshot_survives_a_hash_of_strings(progress: Progress) -> None:
    flat = [str(part) for part in flatten(to_fields(progress))]
    assert from_fields(dict(zip(flat[::2], flat[1::2], strict=True))) == progress


@given(st.sets(stages))
def test_only_the_stages_of_the_recipe_have_fields(some: set[str]) -> None:
    fields = to_fields(Progress("1", done_by_stage=dict.fromkeys(some, 0)))
    names = {"fetch": "fetched", "resize": "resized", "enhance": "enhanced", "store": "written"}
    assert {stage for stage, name in names.items() if name in fields} == some


def test_progress_is_a_percentage_to_one_decimal() -> None:
    assert to_fields(Progress("1", total=3, stored=1))["progress"] == 33.3


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_a_number_that_json_does_not_have_is_left_out(number: float) -> None:
    assert "etaSeconds" not in to_fields(Progress("1", eta_seconds=number))


def test_the_undecodable_bytes_of_a_name_are_shown_as_escapes() -> None:
    fields = to_fields(Progress("1", error="no such file: caf\udce9.jpg"))
    assert fields["error"] == "no such file: caf\\udce9.jpg"


def test_fields_of_others_are_ignored() -> None:
    assert from_fields({"id": "1", "spec": "{}", "somebodyElses": "x"}) == Progress("1")


@pytest.mark.parametrize(
    ("field", "value"), [("status", "done"), ("total", "many"), ("seconds", "long"), ("fetched", "1.5")]
)
def test_a_field_that_means_nothing_is_named(field: str, value: str) -> None:
    fields = to_fields(replace(Progress("7"), total=1)) | {field: value}
    with pytest.raises(StateError, match=f"job '7': its field '{field}' is '{value}'"):
        from_fields(fields)


def test_a_state_without_an_id_is_refused() -> None:
    with pytest.raises(StateError, match="no field 'id'"):
        from_fields({"status": "queued"})
