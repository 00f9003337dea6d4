"""The one judge of all faults: what a disturbed job leaves is what an undisturbed one leaves."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.domain import Job, Recipe
from pipeline.runner.ledger import Ledger
from pipeline.state import JobStore
from tests.runner.shards import assert_each_once, read_shard

SMALL = Recipe(max_width=64, max_height=64, enhance=None)

# Times and attempts differ from run to run; all else that a ledger says of an image does not.
DECIDED = (
    *("key", "url", "status", "width", "height", "channels", "bytes_in", "bytes_out", "sha256", "stage", "error"),
    *("recipe", "model", "fingerprint", "source_sha256", "duplicate_of"),
)


_IN_LEDGER = re.compile(r"part-\d{6}-\w{8}[.]parquet|_collection-\w+[.]jsonl|_checkpoint-\w+[.]json|_suspects[.]json")


def read_decided(job: Job) -> dict[str, dict[str, Any]]:
    """Return what a job's ledger says of each image, by its key; the test fails if one is there twice."""
    rows = Ledger(job.destination, job.id).read().select([*DECIDED, "output"]).to_pylist()
    by_key = {row["key"]: row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


@dataclass(frozen=True)
class Undisturbed:
    """What a job leaves that nobody disturbed.

    Attributes
    ----------
    rows : mapping of str to mapping
        What its ledger says, by key.
    """

    rows: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, job: Job, store: JobStore) -> Undisturbed:
        """Take a job that has ended as the measure, once its files and its state are what its ledger says."""
        found = cls(read_decided(job))
        found.require_same(job, store)
        return found

    @property
    def sha256_by_key(self) -> dict[str, str]:
        """The hash of every stored image."""
        return {key: row["sha256"] for key, row in self.rows.items() if row["status"] == "stored"}

    def require_same(self, job: Job, store: JobStore, but: Collection[str] = ()) -> None:
        """Fail the test unless a job that is completed has left the same: in ledger, destination and Redis.

        What the ledger says in the columns that `but` names may differ.
        """
        rows = read_decided(job)
        assert rows.keys() == self.rows.keys(), "an image is lost, or another one is there"
        compared = set(DECIDED).difference(but)
        for key, row in rows.items():
            calm = self.rows[key]
            differing = {name: (row[name], calm[name]) for name in compared if row[name] != calm[name]}
            assert not differing, (key, differing)
        self._require_files(job, rows)
        progress = store.progress(job.id)
        assert (progress.status, progress.error, progress.total) == ("completed", "", len(rows))
        counts = Counter(str(row["status"]) for row in rows.values())
        assert (progress.stored, progress.skipped, progress.failed) == tuple(
            counts[status] for status in ("stored", "skipped", "failed")
        )
        assert dict(progress.failed_by_error) == Counter(row["error"] for row in rows.values() if row["error"])
        assert progress.bytes_in == sum(row["bytes_in"] for row in rows.values())
        assert set(progress.done_by_stage.values()) == {len(rows)}

    def _require_files(self, job: Job, rows: Mapping[str, Mapping[str, Any]]) -> None:
        out = Path(job.destination)
        if job.output == "webdataset":
            assert_each_once(out, job.id, set(self.sha256_by_key))
        else:
            sha256_by_output = {row["output"]: row["sha256"] for row in rows.values() if row["status"] == "stored"}
            found = {str(path): _sha256(path.read_bytes()) for path in out.rglob("*") if _is_output(path)}
            differing = sorted(found.items() ^ sha256_by_output.items())
            assert not differing, "files and ledger differ"
        left = [path for path in (out / "_ledger").rglob("*") if path.is_file() and not _IN_LEDGER.match(path.name)]
        assert not left, "something half done is left beside the ledger"


def _is_output(path: Path) -> bool:
    return path.is_file() and "_ledger" not in path.parts


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Witness:
    """Looks at all that appears under a final name, from the first moment on, and reads it whole.

    Attributes
    ----------
    looked : int
        Files that it has read.
    wrong : list of str
        Files that were half-written, or not what they are in an undisturbed run.
    """

    def __init__(self, out: Path, sha256_by_key: Mapping[str, str]) -> None:
        self.looked = 0
        self.wrong: list[str] = []
        self._out = out
        self._sha256_by_key = sha256_by_key
        self._seen: set[tuple[str, int, int, int]] = set()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="witness")

    def look(self) -> None:
        """Read what is new."""
        for path in _walk(self._out):
            try:
                about = path.stat()
                version = (str(path), about.st_ino, about.st_mtime_ns, about.st_size)
                if version in self._seen:
                    continue
                self._seen.add(version)
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            self.looked += 1
            if not self._is_right(path, data):
                self.wrong.append(f"{path}: {len(data)} bytes")

    def _is_right(self, path: Path, data: bytes) -> bool:
        if path.suffix == ".tar":
            try:
                told = read_shard(data, str(path))
            except Exception:  # noqa: BLE001 - whatever it is: nobody could read the shard
                return False
            return all(each.about["sha256"] == self._sha256_by_key[each.about["key"]] for each in told)
        if path.suffix == ".parquet":
            return data[:4] == data[-4:] == b"PAR1"
        key = path.relative_to(self._out).with_suffix("").as_posix()
        return _sha256(data) == self._sha256_by_key.get(key)

    def _watch(self) -> None:
        while not self._is_over.wait(0.03):
            self.look()

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        if kind is None:
            self.look()
            assert self.looked, "nothing ever appeared"
            assert not self.wrong


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files that whoever looks takes for results or parts of the ledger."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        # Beside the ledger, and where shards are in the making, are files that are nobody's results.
        if entry.name.startswith(".") or (entry.name.startswith("_") and entry.name != "_ledger"):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


@contextmanager
def witnessed(out: Path, undisturbed: Undisturbed) -> Iterator[Witness]:
    """Have everything looked at that appears at a destination during the block; nothing of it may be half-written."""
    with Witness(out, undisturbed.sha256_by_key) as witness:
        yield witness
