"""Which images of a job are of the same bytes."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pipeline.domain import IMAGE_FIELDS, Failure, Outcome
from pipeline.scratch import ScratchTable

# What becomes of the duplicates of an original that had other bytes when it was fetched again.
_CHANGED: Final = json.dumps({"failed": ["fetch", "WorkerLostError", "it had other bytes when it was fetched again"]})


class Contents(ScratchTable):
    """The first image of each content of a job, the *original*, and what became of it; on disk rather than in memory.

    All others are its duplicates. One that is not made itself is *left*: it waits for the Outcome of its original.

    Parameters
    ----------
    is_any_left : bool
        Whether duplicates are left; else they are only marked, and what became of the originals need not be kept.
    """

    def __init__(self, *, is_any_left: bool) -> None:
        self.n_waiting = 0
        self._is_any_left = is_any_left
        self._waiting_by_original: defaultdict[str, list[Outcome]] = defaultdict(list)
        # `end` is what became of an original: empty for nothing yet.
        super().__init__(
            "CREATE TABLE originals (source_sha256 BLOB PRIMARY KEY, key TEXT, end TEXT DEFAULT '') WITHOUT ROWID",
            *(["CREATE INDEX originals_by_key ON originals (key)"] if is_any_left else []),
        )

    def remember(self, rows: Iterable[Sequence[Any]]) -> None:
        """Take what earlier runs of the job have made.

        Parameters
        ----------
        rows : iterable of sequence
            The hash of the source, the key, and the values of `IMAGE_FIELDS`.
        """
        self._database.executemany(
            "INSERT OR IGNORE INTO originals VALUES (?, ?, ?)",
            (
                (
                    bytes.fromhex(sha256),
                    key,
                    json.dumps(dict(zip(IMAGE_FIELDS, made, strict=True))) if self._is_any_left else "",
                )
                for sha256, key, *made in rows
                if sha256
            ),
        )

    def find_duplicates(self, sha256_by_key: Mapping[str, str]) -> dict[str, str]:
        """Take images that are about to be made; return the originals' keys of those that need not be, by their keys.

        Parameters
        ----------
        sha256_by_key : mapping of str to str
            Of their sources' bytes.
        """
        original_by_key = {key: self._claim(key, sha256) for key, sha256 in sha256_by_key.items()}
        return {key: original for key, original in original_by_key.items() if original != key}

    def mark(self, outcome: Outcome) -> Outcome:
        """Return an Outcome with what it is a duplicate of."""
        if not outcome.source.sha256 or outcome.duplicate_of:
            return outcome
        original = self._claim(outcome.item.key, outcome.source.sha256)
        return outcome if original == outcome.item.key else replace(outcome, duplicate_of=original)

    def leave(self, duplicates: Iterable[Outcome]) -> list[Outcome]:
        """Take duplicates that are left; return what becomes of those whose original has ended. The others wait."""
        ended = []
        for duplicate in duplicates:
            row = self._database.execute(
                "SELECT end FROM originals WHERE source_sha256 = ?", (bytes.fromhex(duplicate.source.sha256),)
            ).fetchone()
            if row and row[0]:
                ended.append(_end_as(duplicate, row[0]))
            else:
                self._waiting_by_original[duplicate.duplicate_of].append(duplicate)
                self.n_waiting += 1
        return ended

    def settle(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """Note what became of images; return what becomes of those that have waited for them."""
        settled: list[Outcome] = []
        ended = deque(outcomes if self._is_any_left else ())
        while ended:
            outcome = ended.popleft()
            key, digest = outcome.item.key, bytes.fromhex(outcome.source.sha256)
            end = _end_of(outcome)
            self._database.execute(
                "UPDATE originals SET end = ? WHERE source_sha256 = ? AND key = ?", (end, digest, key)
            )
            # It was the original of other bytes too, if its source had these when it was fetched first. Of one that was
            # lost with its worker, nobody knows the hash.
            other_end = end if outcome.failure else _CHANGED
            self._database.execute("UPDATE originals SET end = ? WHERE key = ? AND end = ''", (other_end, key))
            waiting = self._waiting_by_original.pop(key, ())
            self.n_waiting -= len(waiting)
            followers = [
                _end_as(each, end if each.source.sha256 == outcome.source.sha256 else other_end) for each in waiting
            ]
            settled += followers
            # One that was fetched again, and found to be a duplicate itself, may have some that wait for it.
            ended += followers
        return settled

    def _claim(self, key: str, sha256: str) -> str:
        digest = bytes.fromhex(sha256)
        self._database.execute("INSERT OR IGNORE INTO originals (source_sha256, key) VALUES (?, ?)", (digest, key))
        row = self._database.execute("SELECT key FROM originals WHERE source_sha256 = ?", (digest,)).fetchone()
        return str(row[0])


def is_left(outcome: Outcome) -> bool:
    """Whether a worker has left an image to its original."""
    return outcome.status == "skipped" and bool(outcome.duplicate_of) and not outcome.output


def _end_of(original: Outcome) -> str:
    if failure := original.failure:
        return json.dumps({"failed": [failure.stage, failure.error, failure.message]})
    return json.dumps({name: getattr(original, name) for name in IMAGE_FIELDS})


def _end_as(duplicate: Outcome, original_end: str) -> Outcome:
    end = json.loads(original_end)
    if "failed" in end:
        stage, error, message = end["failed"]
        message = f"it has the same bytes as {duplicate.duplicate_of!r}, which failed: {message}"
        return replace(duplicate, status="failed", failure=Failure(stage, error, message))
    return replace(duplicate, **end)
