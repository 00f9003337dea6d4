"""Images in S3, fetched from real servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.domain import FetchPolicy
from pipeline.errors import AccessError, MissingError, ServerError, TooLargeError
from pipeline.stages.fetch import Fetched, Fetcher, Unfetched
from tests.fixtures.s3 import S3, Gateway


def fetch(*urls: str, options: dict[str, Any], policy: FetchPolicy | None = None) -> list[Fetched | Unfetched]:
    async def main() -> list[Fetched | Unfetched]:
        fetcher = Fetcher(policy or FetchPolicy(), options)
        try:
            return await asyncio.gather(*map(fetcher.try_fetch, urls))
        finally:
            await fetcher.aclose()

    return asyncio.run(main())


def test_objects_are_fetched_whole(s3: S3) -> None:
    s3.put({"a b+ü%20.jpg": b"abc", "empty.jpg": b"", "large.jpg": bytes(11)})
    names = ("a b+ü%20.jpg", "empty.jpg", "large.jpg", "missing.jpg")
    policy = FetchPolicy(max_bytes=10)
    fetched = fetch(*(f"{s3.bucket}/{name}" for name in names), options=s3.options, policy=policy)
    assert fetched[:2] == [Fetched(b"abc", 1), Fetched(b"", 1)]
    assert [type(failed.error) for failed in fetched[2:]] == [TooLargeError, MissingError]


def test_a_store_that_is_asked_too_often_is_asked_again_later(gateway: tuple[Gateway, S3]) -> None:
    """As often as the policy says: neither s3fs nor botocore multiply it."""
    gate, through = gateway
    S3(gate.endpoint, through.bucket).put({"a.jpg": b"abc"})
    gate.refusals["GET"] = [503, 429]
    assert fetch(f"{through.bucket}/a.jpg", options=through.options) == [Fetched(b"abc", 3)]
    assert gate.requests["GET"] == 3


def test_a_store_that_stays_busy_is_given_up(gateway: tuple[Gateway, S3]) -> None:
    gate, through = gateway
    gate.refusals["GET"] = [503] * 9
    (failed,) = fetch(f"{through.bucket}/a.jpg", options=through.options, policy=FetchPolicy(retries=1))
    assert isinstance(failed, Unfetched)
    assert isinstance(failed.error, ServerError)
    assert str(failed.error).endswith(
        "the store answers 503 SlowDown: Please reduce your request rate. (after 2 attempts)"
    )
    assert gate.requests["GET"] == 2


@pytest.mark.parametrize(
    ("options", "kind", "why"),
    [
        ({"secret": "wrong"}, AccessError, "permission denied (403 SignatureDoesNotMatch"),
        ({"endpoint_url": "http://127.0.0.1:9"}, ServerError, "Could not connect to the endpoint URL"),
    ],
)
def test_what_is_wrong_is_said(rclone_server: str, options: dict[str, str], kind: type[Exception], why: str) -> None:
    options = {**S3(rclone_server, "").options, **options}
    (failed,) = fetch("s3://bucket/a.jpg", options=options, policy=FetchPolicy(retries=0))
    assert isinstance(failed, Unfetched)
    assert type(failed.error) is kind
    assert why in str(failed.error)


def test_a_missing_bucket_is_named_as_such(s3: S3) -> None:
    (failed,) = fetch("s3://misspelt-bucket/a.jpg", options=s3.options)
    assert isinstance(failed, Unfetched)
    assert type(failed.error) is MissingError
    assert "there is no such bucket" in str(failed.error)
