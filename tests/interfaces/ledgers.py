"""Ledgers as real runs leave them, made of Outcomes and read as a user reads them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa

from pipeline.domain import Failure, Item, Job, Outcome, Progress, Recipe
from pipeline.runner.rows import SCHEMA, outcome_row
from pipeline.urls import redact

STARTED_S = datetime(2026, 11, 20, 9, 30, tzinfo=UTC).timestamp()
JOB = Job("20261120-093000-7c1e", "photos.csv", "s3://archive/photos-1024", Recipe(enhance="restore", format="webp"))

HOSTS = (("images.example.org", 0.06), ("cdn-eu-west-3.photos.example.com:8443", 0.11), ("slow.example.net", 0.7))
FAILURES = (
    Failure("fetch", "MissingError", "cannot fetch '{url}': 404 Not Found"),
    Failure("fetch", "TimeoutFetchError", "cannot fetch '{url}': no whole answer in 30 s, 3 attempts"),
    Failure("fetch", "AccessError", "cannot fetch '{url}': 403 Forbidden"),
    Failure("resize", "TruncatedError", "cannot decode: it ends after 61440 of about 143000 bytes"),
    Failure("resize", "TooManyPixelsError", "cannot decode: 900 megapixels, limit 100"),
    Failure("enhance", "MemoryError", "MemoryError: cannot allocate 1.2 GB"),
)


def make_outcomes(count: int, span_s: float = 95.0, seed: int = 0) -> list[Outcome]:
    """Return what a run over three hosts gives, about one image in thirty failed."""
    chance = random.Random(seed)
    return [_make_outcome(number, STARTED_S + 1.5 + span_s * number / count, chance) for number in range(count)]


def _make_outcome(number: int, finished_at: float, chance: random.Random) -> Outcome:
    host, latency_s = chance.choices(HOSTS, weights=(70, 25, 5))[0]
    item = Item(f"{number:06}", f"https://{host}/2026/{number:06}.jpg?size=full&token=secret")
    seconds = {"fetch": latency_s * chance.lognormvariate(0, 0.5)}
    bytes_in = round(chance.lognormvariate(12.5, 0.6))
    failure = chance.choice(FAILURES) if chance.random() < 1 / 30 else None
    if failure:
        failure = Failure(failure.stage, failure.error, failure.message.format(url=redact(item.url)))
        return Outcome(item, "failed", bytes_in=bytes_in, seconds=seconds, failure=failure, finished_at=finished_at)
    megapixels = chance.uniform(0.3, 0.8)
    seconds |= {"resize": 0.02, "enhance": 0.09 * megapixels, "store": 0.025 * megapixels}
    return Outcome(
        item,
        "stored",
        output=f"s3://archive/photos-1024/{number:06}.webp",
        width=1024,
        height=round(1000 * megapixels),
        bytes_in=bytes_in,
        bytes_out=bytes_in // 4,
        seconds=seconds,
        finished_at=finished_at,
    )


def to_ledger(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return the outcomes as `JobHandle.outcomes` does."""
    rows = [outcome_row(outcome, JOB.recipe.fingerprint) for outcome in outcomes]
    return pa.Table.from_pylist(rows, schema=SCHEMA).to_pandas()


def to_progress(outcomes: Sequence[Outcome]) -> Progress:
    """Return the last snapshot of a run that gave these outcomes."""
    status = Counter(outcome.status for outcome in outcomes)
    seconds = max((outcome.finished_at - STARTED_S for outcome in outcomes), default=0.0)
    return Progress(
        job_id=JOB.id,
        status="completed",
        total=len(outcomes),
        stored=status["stored"],
        skipped=status["skipped"],
        failed=status["failed"],
        bytes_in=sum(outcome.bytes_in for outcome in outcomes),
        bytes_out=sum(outcome.bytes_out for outcome in outcomes),
        seconds=seconds,
        images_per_second=len(outcomes) / seconds if seconds else 0.0,
        started_at="2026-11-20T09:30:00Z",
    )
