"""The words of the pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import FITS, FORMATS, Failure, FetchPolicy, Job, Progress, Recipe
from pipeline.errors import MissingError, RecipeError

recipes = st.builds(
    Recipe,
    max_width=st.integers(1, 16383),
    max_height=st.integers(1, 16383),
    fit=st.sampled_from(FITS),
    enhance=st.none() | st.sampled_from(["sharpen", "restore"]),
    strength=st.floats(0, 1),
    format=st.sampled_from(FORMATS),
    quality=st.integers(1, 100),
    enlarge=st.booleans(),
    background=st.from_regex(r"#[0-9a-f]{6}", fullmatch=True),
    keep_copyright=st.booleans(),
)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("max_width", 0, "1 to 16383"),
        ("max_height", 16384, "1 to 16383"),
        ("max_width", 10.5, "whole number"),
        ("max_width", True, "whole number"),
        ("fit", "stretch", "inside, cover, contain, fill"),
        ("format", "gif", "jpeg, webp, avif, png, same"),
        ("quality", 101, "1 to 100"),
        ("quality", "80", "whole number"),
        ("background", "white", "#rrggbb"),
        ("enhance", "", "a model's name"),
        ("strength", 1.01, "a number from 0 to 1"),
        ("strength", True, "a number from 0 to 1"),
        ("enlarge", "yes", "True, False"),
    ],
)
def test_a_recipe_says_what_is_out_of_range_and_what_is_allowed(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(**{field: value})
    assert field in str(caught.value)
    assert repr(value) in str(caught.value)
    assert allowed in str(caught.value)


def test_an_unknown_field_of_a_recipe_is_named() -> None:
    with pytest.raises(RecipeError, match="no field 'width'; its fields are max_width"):
        Recipe.from_mapping({"width": 100})


@given(one=recipes, other=recipes)
def test_fingerprints_are_equal_for_equal_recipes_only(one: Recipe, other: Recipe) -> None:
    assert (one.fingerprint == other.fingerprint) == (one == other)


def test_a_fingerprint_is_the_same_in_every_process_and_release() -> None:
    """Whoever changes this makes every ledger of earlier releases look like another recipe's."""
    assert Recipe().fingerprint == "3a7c06a5e20ecb6e"


def test_a_recipe_without_a_model_has_no_enhance_stage() -> None:
    assert Recipe(enhance=None).stages == ("fetch", "resize", "store")
    assert Recipe().stages == ("fetch", "resize", "enhance", "store")


@given(recipe=recipes, url_column=st.text(min_size=1), retries=st.integers(0, 100), allow_private=st.booleans())
def test_a_job_survives_its_json(recipe: Recipe, url_column: str, retries: int, allow_private: bool) -> None:
    policy = FetchPolicy(retries=retries, allow_private=allow_private)
    job = Job("20261123-1", "photos/", "out/", recipe, policy, url_column, None, "md5", ("id", "caption"), "webdataset")
    assert Job.from_json(job.to_json()) == job


@pytest.mark.parametrize("job_id", ["", "a/b", "..", "-a", "a b", "a" * 101, "jöb"])
def test_a_job_s_id_is_safe_as_a_folder_s_name(job_id: str) -> None:
    with pytest.raises(RecipeError, match="a job's id is"):
        Job(job_id, "photos/", "out/")


def test_a_fetch_policy_is_checked() -> None:
    for name, value in (
        ("timeout", 0),
        ("timeout", "3"),
        ("timeout", None),
        ("timeout", float("nan")),
        ("retries", -1),
        ("max_bytes", 0),
        ("connections_per_host", 0),
        ("allow_private", "no"),
        ("requests_per_second", 0),
        ("requests_per_second", float("nan")),
        ("requests_per_second", True),
        ("respect_robots", "no"),
        ("user_agent", ""),
        ("user_agent", " lab"),
        ("user_agent", 7),
    ):
        with pytest.raises(RecipeError, match=f"^{name} is {value!r}; allowed is "):
            FetchPolicy(**{"timeout_s" if name == "timeout" else name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["lab\r\nCookie: a=b", "lab\n", "lab\0", "lab\x7f", "läb", "l" * 201])
def test_a_user_agent_that_would_be_more_than_a_header_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"^user_agent is .*; allowed is up to 200 printable letters"):
        FetchPolicy(user_agent=text)


def test_a_job_of_a_release_that_knew_less_of_fetching_is_read() -> None:
    """What it does not name has its default."""
    values = json.loads(Job("1", "photos/", "out/", fetch=FetchPolicy(timeout_s=7)).to_json())
    for name in ("requests_per_second", "respect_robots", "user_agent"):
        del values["fetch"][name]
    assert Job.from_json(json.dumps(values)).fetch == FetchPolicy(timeout_s=7)


@pytest.mark.parametrize("field", ["collection", "destination", "url_column"])
@pytest.mark.parametrize("value", ["", None])
def test_a_job_without_a_place_is_refused(field: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=f"^{field} is {value!r}; allowed is a text"):
        Job(**{"id": "1", "collection": "photos/", "destination": "out/", field: value})


@pytest.mark.parametrize("field", ["key_column", "hash_column"])
def test_a_column_that_is_named_has_a_name(field: str) -> None:
    with pytest.raises(RecipeError, match=f"^{field} is ''; allowed is a text"):
        Job(**{"id": "1", "collection": "list.csv", "destination": "out/", field: ""})  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", ["id", ("id", "id"), (1,)])
def test_columns_are_carried_once_and_by_name(columns: Any) -> None:
    with pytest.raises(RecipeError, match=r"^carry_columns is .*; allowed are the names of columns, each once"):
        Job("1", "list.csv", "out/", carry_columns=columns)


def test_an_output_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^output is 'zip'; allowed is files, webdataset$"):
        Job("1", "list.csv", "out/", output="zip")  # type: ignore[arg-type]


def test_a_job_of_an_earlier_release_is_read() -> None:
    """It names no columns but the URLs', and its output is files."""
    job = Job("1", "list.csv", "out/")
    values = json.loads(job.to_json())
    for name in ("key_column", "hash_column", "carry_columns", "output"):
        del values[name]
    assert Job.from_json(json.dumps(values)) == job


@pytest.mark.parametrize(
    "text", ["{}", "[]", "3", "null", "", "{", '{"recipe": {}, "fetch": {"speed": 1}}', '{"recipe": 1, "fetch": {}}']
)
def test_json_that_is_no_job_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(RecipeError, match=r"^cannot read a job from its JSON: .+$"):
        Job.from_json(text)


def test_a_failure_names_its_subject_once() -> None:
    named = Failure.from_error("fetch", MissingError("cannot fetch 'a.jpg': 404"), "a.jpg")
    assert named.message == "cannot fetch 'a.jpg': 404"
    unnamed = Failure.from_error("resize", ValueError("no"), "a.jpg")
    assert (unnamed.error, unnamed.message) == ("ValueError", "a.jpg: ValueError: no")
    assert named.remedy
    assert not unnamed.remedy


def test_progress_is_a_percentage_of_what_is_known() -> None:
    progress = Progress("1", stored=1, failed=1, skipped=2)
    assert progress.percent == 0
    assert replace(progress, total=8).percent == 50
    assert replace(progress, total=8, status="cancelled").is_finished
    assert Progress("1", total=0).percent == 100
