"""The rows of the ledger: what stands there of an Outcome, and what Item it was of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from pipeline.domain import STAGES, Item, Outcome
from pipeline.errors import RowError
from pipeline.fingerprints import of_promise
from pipeline.sealing import Seal, is_believed, open_url
from pipeline.urls import redact, redact_within

SCHEMA: Final = pa.schema(
    [
        ("key", pa.string()),
        ("url", pa.string()),
        ("status", pa.string()),
        ("output", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("channels", pa.int8()),
        ("bytes_in", pa.int64()),
        ("bytes_out", pa.int64()),
        ("sha256", pa.string()),
        ("attempts", pa.int32()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("message", pa.string()),
        *((f"seconds_{stage}", pa.float64()) for stage in STAGES),
        ("recipe", pa.string()),
        ("model", pa.string()),
        ("finished_at", pa.timestamp("us", tz="UTC")),
        ("expected_hash", pa.string()),
        ("robots", pa.string()),
        ("fingerprint", pa.string()),
        ("source_sha256", pa.string()),
        ("duplicate_of", pa.string()),
        ("sealed_url", pa.string()),
    ]
)

NAMES: Final = frozenset(SCHEMA.names)

# In front of the name of a manifest's column that would be taken for one of the ledger's.
_CARRIED: Final = "manifest_"


def outcome_row(outcome: Outcome, recipe_fingerprint: str) -> dict[str, Any]:
    """Flatten an Outcome to the columns of the ledger, without what is secret in its URL."""
    failure, url = outcome.failure, outcome.item.url
    shown = redact(url)
    return {
        "key": outcome.item.key,
        "url": shown,
        "status": outcome.status,
        "output": outcome.output,
        "width": outcome.width,
        "height": outcome.height,
        "channels": outcome.channels,
        "bytes_in": outcome.bytes_in,
        "bytes_out": outcome.bytes_out,
        "sha256": outcome.sha256,
        "attempts": outcome.attempts,
        "stage": failure.stage if failure else "",
        "error": failure.error if failure else "",
        # An error that nobody has foreseen may quote it.
        "message": redact_within(failure.message.replace(url, shown) if url else failure.message) if failure else "",
        **{f"seconds_{stage}": outcome.seconds.get(stage, 0.0) for stage in STAGES},
        "recipe": recipe_fingerprint,
        "model": outcome.model,
        "finished_at": round(outcome.finished_at * 1e6),
        "expected_hash": outcome.item.expected_hash,
        "robots": outcome.robots,
        "fingerprint": outcome.source.fingerprint,
        "source_sha256": outcome.source.sha256,
        "duplicate_of": outcome.duplicate_of,
        # Of a path it is for the retry alone.
        "sealed_url": outcome.item.sealed_url if outcome.status == "failed" or shown != url else "",
        **{carried_column(name): value for name, value in outcome.item.extra},
    }


def carried_column(name: str) -> str:
    """Return the ledger's column for a column of the manifest: of the same name, unless the ledger has one already."""
    return _CARRIED + name if name in SCHEMA.names or name.startswith(_CARRIED) else name


def item_of(row: Mapping[str, Any], job_id: str, destination: str, seal: Seal | None) -> Item:
    """Return the Item that a row of a job's ledger tells of; one with a problem if its URL is not believed.

    Raises
    ------
    SealError
        If its URL was sealed with another key, or for another job.
    """
    extra = tuple((name.removeprefix(_CARRIED), row[name]) for name in row if name not in SCHEMA.names)
    problem = row["message"] if row["error"] == RowError.__name__ else ""
    # Parts of an earlier release promise nothing, and have sealed nothing.
    promised, sealed = row.get("expected_hash") or "", row.get("sealed_url") or ""
    url = open_url(row["url"], sealed, job_id, seal) if seal else row["url"]
    if seal and not sealed and not is_believed(url, destination):
        problem = (
            f"the ledger in {redact(destination)!r} names {redact(url)!r}, maybe a file of this machine, and has "
            "no seal that shows that this job has written it: run its collection again, under another id"
        )
        url = ""
    return Item(row["key"], url, promised, extra, problem, of_promise(promised))
