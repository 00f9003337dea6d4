"""What a client may ask for: JSON in, a checked Submission or a clear refusal out."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Recipe
from pipeline.errors import PipelineError, RecipeError
from pipeline.interfaces.server.errors import RequestError
from pipeline.interfaces.server.options import Limits, ServerOptions
from pipeline.interfaces.server.submission import Submission, parse_json, read_submission

OPTIONS = ServerOptions(Path("/srv/results"), collections=("s3://open/", "s3://exact"), limits=Limits(urls_per_job=3))

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
names = st.sampled_from(["imageUrl", "imageUrls", "collection", "destination", "options", "jobId"]) | st.text()


def read(**body):
    return read_submission(body, OPTIONS)


@given(st.dictionaries(names, values))
def test_any_json_is_a_submission_or_is_refused_in_words(body):
    with contextlib.suppress(PipelineError):
        read_submission(body, OPTIONS)


def test_one_url_and_a_list_of_urls_are_taken():
    assert read(imageUrl="https://a.example/1.jpg").urls == ("https://a.example/1.jpg",)
    assert read(imageUrls=["http://a.example/1.jpg", "http://b.example/2"]).urls[1] == "http://b.example/2"


def test_options_are_the_recipe_in_camel_case():
    options = {"maxWidth": 10, "maxHeight": 20, "fit": "cover", "quality": 5, "format": "webp", "enhance": "none"}
    assert read(imageUrl="http://a.example/", options=options).recipe == Recipe(10, 20, "cover", None, 1.0, "webp", 5)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "one of imageUrl, imageUrls and collection is needed"),
        ({"imageUrl": "http://a.example/", "imageUrls": []}, 422, "given: imageUrl, imageUrls"),
        ({"imageUrl": "http://a.example/", "extra": 1}, 422, "no field extra is known"),
        ({"imageUrl": "http://a.example/", "options": {"width": 1}}, 422, "no field options.width is known"),
        ({"imageUrl": "http://a.example/", "options": []}, 422, "options is []"),
        ({"imageUrl": 7}, 422, "imageUrl is 7"),
        ({"imageUrls": "http://a.example/"}, 422, "a list of URLs"),
        ({"imageUrls": []}, 422, "a list of URLs that is not empty"),
        ({"imageUrls": ["http://a.example/", "ftp://a.example/"]}, 422, "imageUrls[1] is 'ftp://a.example/'"),
        ({"imageUrls": ["http://a.example/"] * 4}, 413, "4 URLs; allowed are 3"),
        ({"imageUrl": "file:///etc/passwd"}, 422, "allowed is an http or https URL"),
        ({"imageUrl": "/etc/passwd"}, 422, "allowed is an http or https URL"),
        ({"imageUrl": "simplecache::http://a.example/"}, 422, "allowed is an http or https URL"),
        ({"imageUrl": "http://"}, 422, "allowed is an http or https URL"),
        ({"imageUrl": "http://[::1"}, 422, "allowed is an http or https URL"),
        ({"imageUrl": "http://a.example/\nX: y"}, 422, "allowed is an http or https URL"),
        ({"imageUrl": "http://a.example/" + "a" * 5000}, 422, "at most 4096 letters"),
        ({"imageUrl": "http://a.example/", "destination": "s3://open/"}, 422, "destination goes with collection"),
        ({"imageUrl": "http://a.example/", "jobId": ""}, 422, "jobId is ''"),
    ],
)
def test_a_refusal_says_what_and_what_is_allowed(body, status, words):
    with pytest.raises(RequestError) as raised:
        read_submission(body, OPTIONS)
    assert raised.value.status == status
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "place",
    [
        "/etc",
        "file:///etc",
        "s3://secret/",
        "s3://opening/",
        "s3://open/../secret/",
        "s3://open/%2e%2e/secret",
        "s3://open/x?versionId=1",
        "simplecache::s3://open/",
        "s3://open/a::file:///etc",
        "s3://open/..\\secret",
        "s3://exactly",
        "S3://open/",
        "http://169.254.169.254/",
        "memory://x",
        "~/x",
    ],
)
@pytest.mark.parametrize("name", ["collection", "destination"])
def test_places_that_the_operator_has_not_opened_are_refused(name, place):
    body = {"collection": "s3://open/a"} | {name: place}
    with pytest.raises(RequestError, match="has opened") as raised:
        read_submission(
            body, ServerOptions(Path("/srv"), collections=OPTIONS.collections, destinations=("s3://open/",))
        )
    assert raised.value.status == 403


def test_open_places_are_taken():
    submission = read(collection="s3://open/a/b", destination="s3://mine/out")
    assert (submission.collection, submission.destination) == ("s3://open/a/b", "s3://mine/out")
    assert read(collection="s3://exact/x").collection == "s3://exact/x"


def test_a_recipe_that_means_nothing_is_the_recipes_error():
    with pytest.raises(RecipeError, match="quality is 101"):
        read(imageUrl="http://a.example/", options={"quality": 101})


def test_a_signed_url_is_not_repeated_in_a_refusal():
    with pytest.raises(RequestError) as raised:
        read(imageUrl="ftp://user:secret@a.example/?signature=abc")
    assert "secret" not in str(raised.value)
    assert "abc" not in str(raised.value)


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"", 400), (b"\xff", 400), (b"[" * 100_000, 400), (b"[]", 422), (b"7", 422)]
)
def test_what_is_no_json_object_is_refused(body, status):
    with pytest.raises(RequestError) as raised:
        parse_json(body)
    assert raised.value.status == status


def test_a_submission_of_nothing_has_the_default_recipe():
    assert Submission().recipe == Recipe()
    assert json.dumps(parse_json(b'{"a": 1}')) == '{"a": 1}'
