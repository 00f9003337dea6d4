"""The ledger: the Outcomes of a job as Parquet files at ``DESTINATION/_ledger/JOB_ID/``.

One driver appends parts; a part is whole or absent. It alone decides what a resumed run still has to do.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.domain import IMAGE_FIELDS, STAGES, Item, Outcome, Progress
from pipeline.errors import LedgerError, PartsRemovedError
from pipeline.runner.contents import Contents
from pipeline.runner.rows import NAMES, SCHEMA, item_of, outcome_row
from pipeline.runner.seen import SeenKeys
from pipeline.sealing import Seal
from pipeline.storage import LOOK_ATTEMPTS, open_folder, storage_errors, write_whole
from pipeline.urls import redact

# What `Contents` remembers.
_MADE_OF: Final = ("source_sha256", "key", *IMAGE_FIELDS)

# What tries whether the folder can be written begins with this.
_PROBE: Final = "_probe-"

_SUSPECTS: Final = "suspects.json"


def ledger_folder(destination: str, job_id: str) -> str:
    """Return where the ledger of a job is."""
    return posixpath.join(destination, "_ledger", job_id)


class Ledger:
    """The Parquet data set of one job.

    Parameters
    ----------
    destination : str
        A local folder or a URL that fsspec writes to.
    job_id : str
    storage_options : mapping, optional
        As in fsspec.

    Raises
    ------
    LedgerError
        From every method, if the files cannot be read or written.
    """

    def __init__(self, destination: str, job_id: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self._destination = destination
        self._job_id = job_id
        self.folder = ledger_folder(destination, job_id)
        with storage_errors(LedgerError, f"cannot open the ledger {redact(self.folder)!r}"):
            self._fs, self._path = open_folder(self.folder, storage_options)
        self._storage_options = storage_options
        self._next_number: int | None = None

    def append(self, outcomes: Sequence[Outcome], recipe_fingerprint: str) -> None:
        """Write one part; it is there whole, or not at all."""
        self.append_rows([outcome_row(outcome, recipe_fingerprint) for outcome in outcomes])

    def append_rows(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Write one part of rows that `outcome_row` has made; return its path."""
        # As text, whatever they are: a type that is told by the values would differ from part to part.
        carried = dict.fromkeys(name for row in rows for name in row if name not in NAMES)
        schema = pa.schema([*SCHEMA, *((name, pa.string()) for name in carried)])
        part = self._new_part()
        self._write(part, pa.Table.from_pylist(rows, schema=schema))
        return part

    def has_part(self, part: str) -> bool:
        """Whether a part is there."""
        with storage_errors(LedgerError, f"cannot look at {part!r}"):
            # Not `exists`, to which a disk that does not answer is one without the file.
            try:
                self._fs.info(part)
            except FileNotFoundError:
                return False
        return True

    def require_parts(self, parts: Collection[str]) -> None:
        """Raise PartsRemovedError unless all of these parts are there: a folder may be removed under a run."""
        if gone := len(set(map(posixpath.basename, parts)) - set(map(posixpath.basename, self._parts()))):
            raise PartsRemovedError(
                f"{gone} of {len(parts)} parts of the ledger {redact(self.folder)!r} were removed while the job ran: "
                "resume the job, which makes their images again"
            )

    def remove(self, path: str) -> None:
        """Remove a part, or what else is in the folder; one that is gone already is no error."""
        with storage_errors(LedgerError, f"cannot remove {path!r}"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)

    def tables(self, columns: list[str] | None = None, *, newest_first: bool = False) -> Iterator[pa.Table]:
        """Read the parts in the order in which they were written or the other way round, with all columns or some."""
        for part in sorted(self._parts(), reverse=newest_first):
            yield self._read(part, columns)

    def new_tables(self, seen_parts: set[str], columns: list[str]) -> Iterator[pa.Table]:
        """Read the parts that are not among the seen ones, in their order, and add them to these."""
        for part in self._parts():
            if part not in seen_parts:
                table = self._read(part, columns)
                seen_parts.add(part)
                yield table

    def read(self) -> pa.Table:
        """Read the whole ledger; of an Item that was done twice, the later row."""
        parts = list(self.tables())
        table = pa.concat_tables(parts, promote_options="default") if parts else SCHEMA.empty_table()
        latest = pa.table({"key": table["key"], "row": pa.array(range(len(table)), pa.int64())})
        rows = latest.group_by("key", use_threads=False).aggregate([("row", "max")])["row_max"]
        return table.take(rows.sort())

    def last_part(self) -> str:
        """Return the name of the newest part; empty if there is none."""
        return posixpath.basename(max(self._parts(), default=""))

    def tally(self, progress: Progress, seen: SeenKeys, contents: Contents) -> Progress:
        """Count what the ledger has, and note its keys and contents; return `progress` with these counts."""
        status: Counter[str] = Counter()
        failed_by_stage: Counter[str] = Counter()
        failed_by_error: Counter[str] = Counter()
        seconds: Counter[str] = Counter()
        bytes_in = bytes_out = duplicates = 0
        columns = [
            "status",
            "stage",
            "error",
            "bytes_in",
            "duplicate_of",
            *(f"seconds_{stage}" for stage in STAGES),
            *_MADE_OF,
        ]
        # The newest first: of an Item that was done twice, the later row counts.
        for part in self.tables(columns, newest_first=True):
            table = part.filter(pa.array(map(seen.add, part["key"].to_pylist()), pa.bool_()))
            status.update(table["status"].to_pylist())
            failed_by_stage.update(filter(None, table["stage"].to_pylist()))
            failed_by_error.update(filter(None, table["error"].to_pylist()))
            seconds.update({stage: pc.sum(table[f"seconds_{stage}"]).as_py() or 0.0 for stage in STAGES})
            bytes_in += pc.sum(table["bytes_in"]).as_py() or 0
            stored = table.filter(pc.equal(table["status"], "stored"))
            bytes_out += pc.sum(stored["bytes_out"]).as_py() or 0
            if "source_sha256" in table.column_names:
                is_original = pc.equal(table["duplicate_of"], "")
                duplicates += len(table) - (pc.sum(is_original).as_py() or 0)
                originals = table.filter(pc.and_(is_original, pc.not_equal(table["output"], "")))
                contents.remember(zip(*(originals[name].to_pylist() for name in _MADE_OF), strict=True))
        return replace(
            progress,
            stored=status["stored"],
            skipped=status["skipped"],
            failed=status["failed"],
            failed_by_stage=dict(failed_by_stage),
            failed_by_error=dict(failed_by_error),
            seconds_by_stage=dict(seconds),
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            duplicates=duplicates,
        )

    def failed_items(self, seal: Seal | None = None) -> list[Item]:
        """Return the Items whose Outcome is ``failed``.

        Parameters
        ----------
        seal : Seal, optional
            What opens their URLs, where they have secrets or are paths; without it, all that stands there is believed.

        Raises
        ------
        SealError
            If one was sealed with another key, or for another job.
        """
        table = self.read()
        failed = table.filter(pc.equal(table["status"], "failed"))
        return [item_of(row, self._job_id, self._destination, seal) for row in failed.to_pylist()]

    def forget(self, keys: Collection[str]) -> None:
        """Take the rows of `keys` out: for whoever resumes the job, they are still to be done."""
        forgotten = pa.array(keys, pa.string())
        for part in self._parts():
            table = self._read(part, None)
            kept = table.filter(pc.invert(pc.is_in(table["key"], forgotten)))
            if len(kept) < len(table):
                self._write(part, kept)

    def save(self, name: str, text: str) -> str:
        """Keep a text beside the parts, under a name that readers of Parquet data sets pass over; return its place."""
        path = posixpath.join(self._path, f"_{name}")
        self._put(path, text.encode())
        return str(self._fs.unstrip_protocol(path)) if "://" in self.folder else path

    def save_suspects(self, keys: Collection[str]) -> None:
        """Keep the keys of images that have lost their worker: no other is to be lost to them."""
        self.save(_SUSPECTS, json.dumps(sorted(keys)))

    def suspects(self) -> frozenset[str]:
        """Return the keys of images that have lost their worker in this or an earlier run."""
        path = posixpath.join(self._path, f"_{_SUSPECTS}")
        with storage_errors(LedgerError, f"cannot read {path!r}"):
            try:
                return frozenset(json.loads(self._fs.cat_file(path)))
            except FileNotFoundError:
                return frozenset()

    def check_writable(self) -> None:
        """Write a file beside the parts and remove it."""
        path = posixpath.join(self._path, f"{_PROBE}{uuid.uuid4().hex}")
        with storage_errors(LedgerError, f"cannot write {path!r}"):
            fs, _ = open_folder(self.folder, self._storage_options, attempts=LOOK_ATTEMPTS)
            write_whole(fs, path, b"")
        # Whoever runs the job may have taken it for a dead one's.
        self.remove(path)

    def clear_leftovers(self) -> None:
        """Remove what processes that were killed have left half done; only for whoever holds the job's lease."""
        for path in self._ls():
            name = posixpath.basename(path)
            if name.startswith(_PROBE) or (name.startswith(".") and name.endswith(".part")):
                self.remove(path)

    def _parts(self) -> list[str]:
        return sorted(name for name in self._ls() if name.endswith(".parquet"))

    def _ls(self) -> list[str]:
        with storage_errors(LedgerError, f"cannot list the ledger {redact(self.folder)!r}"):
            try:
                names: list[str] = self._fs.ls(self._path, detail=False)
            except FileNotFoundError:
                return []
        return names

    def _new_part(self) -> str:
        # Numbered, so that the parts sort in their order; the rest keeps two drivers from writing one name.
        if self._next_number is None:
            parts = self._parts()
            self._next_number = int(posixpath.basename(parts[-1]).split("-")[1]) + 1 if parts else 0
        name = f"part-{self._next_number:06}-{uuid.uuid4().hex[:8]}.parquet"
        self._next_number += 1
        return posixpath.join(self._path, name)

    def _read(self, part: str, columns: list[str] | None) -> pa.Table:
        with storage_errors(LedgerError, f"cannot read the ledger's part {part!r}"), self._fs.open(part, "rb") as file:
            if columns is not None:
                # Parts of an earlier release have not all of them.
                there = pq.read_schema(file).names
                columns = [name for name in columns if name in there]
                file.seek(0)
            return pq.read_table(file, columns=columns)

    def _write(self, part: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self._put(part, sink.getvalue().to_pybytes())

    def _put(self, path: str, data: bytes) -> None:
        with storage_errors(LedgerError, f"cannot write {path!r}"):
            write_whole(self._fs, path, data)
