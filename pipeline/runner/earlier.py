"""What earlier jobs have left at a destination: which images are there, and of which bytes they were made.

Their ledgers tell. A nightly job would have to read those of all nights before; so a job that completes leaves a
*checkpoint* beside them: its own ledger has all of its collection, and the others, as far as they went when it began,
need not be read again by whoever runs the same collection with the same Recipe next.
"""

from __future__ import annotations

import hashlib
import json
import logging
import posixpath
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.domain import Item, Job, SourceVersion
from pipeline.errors import LedgerError, SealError
from pipeline.runner.ledger import Ledger
from pipeline.runner.places import Places
from pipeline.scratch import ScratchTable
from pipeline.sealing import Seal, open_url
from pipeline.stages.sample import member_stem, split_member_url
from pipeline.storage import open_folder, storage_errors, write_whole
from pipeline.urls import redact


class StoredImage(NamedTuple):
    """An image that a job has stored, as its ledger tells."""

    url: str
    fingerprint: str
    source_sha256: str
    output: str
    width: int
    height: int
    channels: int
    bytes_out: int
    sha256: str
    model: str
    sealed_url: str = ""
    job_id: str = ""

    @property
    def source(self) -> SourceVersion:
        """What it was made of."""
        return SourceVersion(self.fingerprint, self.source_sha256)


_COLUMNS: Final = ("key", "recipe", *StoredImage._fields, "finished_at")

# The name of the folder tells which job's it is.
_READ: Final = tuple(name for name in _COLUMNS if name != "job_id")
_KEY, _OUTPUT = (_COLUMNS.index(name) for name in ("key", "output"))

# Of two images under one name, the later one is there. Nothing of a user's is in these statements.
_ADD: Final = f"""
    INSERT INTO images ({", ".join(_COLUMNS)}) VALUES ({", ".join("?" * len(_COLUMNS))}) ON CONFLICT (output) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS)} WHERE excluded.finished_at >= finished_at
"""
_FIND: Final = (
    f"SELECT {', '.join(StoredImage._fields)} FROM images"
    " WHERE key = ? AND recipe = ? AND model = ? ORDER BY finished_at DESC"
)


log = logging.getLogger(__name__)


class EarlierJobs(ScratchTable):
    """The images that other jobs have stored at a job's destination; kept on disk rather than in memory.

    Parameters
    ----------
    job : Job
    model : str
        The label of the Recipe's model; empty without one.
    storage_options : mapping, optional
        As in fsspec, for the destination.
    seal : Seal, optional
        What opens the URLs that have secrets.

    Raises
    ------
    LedgerError
        From every method, if the ledgers cannot be read.
    """

    def __init__(
        self, job: Job, model: str, storage_options: Mapping[str, Any] | None = None, seal: Seal | None = None
    ) -> None:
        root = posixpath.join(job.destination, "_ledger")
        with storage_errors(LedgerError, f"cannot open the ledgers in {redact(root)!r}"):
            self._fs, self._root = open_folder(root, storage_options)
        columns = (name for name in _COLUMNS if name != "output")
        super().__init__(
            f"CREATE TABLE images (output TEXT PRIMARY KEY, {', '.join(columns)}) WITHOUT ROWID",
            "CREATE INDEX images_by_key ON images (key)",
        )
        self._job = job
        self._model = model
        self._storage_options = storage_options
        self._seal = seal
        self._places = Places(storage_options)
        self._last_part_by_job: dict[str, str] = {}

    def read(self) -> None:
        """Read the ledgers of other jobs, but for those that the last checkpoint makes needless."""
        ledgers = {job_id: Ledger(self._job.destination, job_id, self._storage_options) for job_id in self._job_ids()}
        self._last_part_by_job = {job_id: part for job_id, ledger in ledgers.items() if (part := ledger.last_part())}
        if self._job.force:
            return
        needless = self._read_checkpoint()
        for job_id, last_part in self._last_part_by_job.items():
            if needless.get(job_id) != last_part:
                for table in ledgers[job_id].tables([*_READ, "status"]):
                    self._add(table, job_id)

    def find(self, item: Item) -> StoredImage | None:
        """Return the image that the Recipe and its model made for an Item, if it is still there.

        Raises
        ------
        DestinationError
            If that cannot be found out.
        """
        made_by = (self._job.recipe.fingerprint, self._model)
        for row in self._database.execute(_FIND, (item.key, *made_by)):
            found = StoredImage(*row)
            member, shard = split_member_url(found.output)
            is_shard = bool(member)
            if is_shard == (self._job.output == "webdataset") and self._places.has(
                shard if is_shard else found.output, None if is_shard else found.bytes_out
            ):
                return found._replace(url=self._open(found))
        return None

    def _open(self, stored: StoredImage) -> str:
        """Return where an image came from; nowhere, if that cannot be read: then its source is asked, at worst."""
        if not stored.sealed_url:
            return stored.url
        try:
            return open_url(stored.url, stored.sealed_url, stored.job_id, self._seal) if self._seal else ""
        except SealError:
            return ""

    def write_checkpoint(self) -> None:
        """Note that the job's ledger has all of its collection; without that, the next run only reads more."""
        path = self._checkpoint_path()
        try:
            with storage_errors(LedgerError, f"cannot write {path!r}"):
                write_whole(self._fs, path, json.dumps(self._last_part_by_job).encode())
        except LedgerError as error:
            log.warning("%s; the next run reads all ledgers", error)

    def _job_ids(self) -> list[str]:
        with storage_errors(LedgerError, f"cannot list {redact(self._root)!r}"):
            try:
                entries = self._fs.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
        names = [posixpath.basename(each["name"].rstrip("/")) for each in entries if each["type"] == "directory"]
        return sorted(name for name in names if name != self._job.id)

    def _read_checkpoint(self) -> dict[str, str]:
        path = self._checkpoint_path()
        try:
            with storage_errors(LedgerError, f"cannot read {path!r}"):
                checkpoint: dict[str, str] = json.loads(self._fs.cat_file(path)) if self._fs.exists(path) else {}
        except LedgerError as error:
            log.warning("%s; all ledgers are read", error)
            return {}
        return checkpoint

    def _checkpoint_path(self) -> str:
        job = self._job
        # A list given in Python is kept in the job's own folder, under a name that tells what is in it.
        collection = job.collection.replace(f"/_ledger/{job.id}/", "/_ledger//")
        about = [collection, job.url_column, job.key_column, job.recipe.fingerprint, self._model, job.output]
        digest = hashlib.blake2b(json.dumps(about).encode(), digest_size=8).hexdigest()
        return posixpath.join(self._root, f"_checkpoint-{digest}.json")

    def _add(self, table: pa.Table, job_id: str) -> None:
        # What failed has left what was there as it was; ledgers of an earlier release tell nothing of their sources.
        if "fingerprint" not in table.column_names:
            return
        done = table.filter(pc.not_equal(table["status"], "failed"))
        done = done.set_column(
            done.column_names.index("finished_at"), "finished_at", done["finished_at"].cast(pa.int64())
        )
        # Those of the release before this one have nothing sealed.
        if "sealed_url" not in done.column_names:
            done = done.append_column("sealed_url", pa.array([""] * len(done), pa.string()))
        done = done.append_column("job_id", pa.array([job_id] * len(done), pa.string()))
        rows = zip(*(done[name].to_pylist() for name in _COLUMNS), strict=True)
        # A duplicate that was left has another image's output, which says nothing about its own.
        self._database.executemany(_ADD, (row for row in rows if _is_own(row[_KEY], row[_OUTPUT])))

    def close(self) -> None:
        """Remove the files."""
        super().close()
        self._places.close()


def _is_own(key: str, output: str) -> bool:
    """Whether an output is called as that of a key."""
    member, _ = split_member_url(output)
    if member:
        return posixpath.splitext(member)[0] == member_stem(key)
    return posixpath.splitext(output)[0].endswith(f"/{key}")
