"""Output as WebDataset: many images in each of a few tar files, ``DESTINATION/JOB-000000.tar`` and so on.

The workers write the images of each batch as one *piece* (see `pieces`), which is what a run that is killed leaves to
the next one. When the pieces that have arrived make a shard of about 500 MB, or at the end of the run, a task on a
worker packs them under a hidden name; and the driver, once it knows that its lease still holds, moves the shard to its
place, and only then writes its images into the ledger. So

- a shard appears whole, and an image that the ledger calls stored is in exactly one shard;
- a shard that the ledger does not name is of a run that was killed between those two steps: whoever goes on with the
  job removes it and packs its images, whose pieces are still there, again;
- images in pieces are not done again: a run that was killed loses no more than what was in flight, as with files.

Workers that append to shards of their own would write each byte once rather than twice, but a worker that dies would
take half a gigabyte of images with it, object stores cannot append, and the last shard of every worker would be small.
What the pieces cost: a second copy of each byte, by tasks that compute nothing; up to twice the size of the shards in
the making; and that the ledger, which galleries and reports read, grows by a shard at a time.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from distributed import Client, Future
from fsspec.implementations.local import LocalFileSystem

from pipeline.domain import Job, Outcome
from pipeline.errors import ClusterError, PipelineError, StoreError
from pipeline.runner.buffer import OutcomeBuffer
from pipeline.runner.cluster import gather_results
from pipeline.runner.ledger import Ledger
from pipeline.runner.pieces import Piece, PieceFolder
from pipeline.runner.rows import outcome_row
from pipeline.runner.seen import SeenKeys
from pipeline.runner.tasks import pack_shard, task_key
from pipeline.runner.tenure import Tenure
from pipeline.stages.sample import member_url, split_member_url
from pipeline.storage import move_whole, open_folder, storage_errors
from pipeline.urls import redact

log = logging.getLogger(__name__)

# A shard is closed before it would have more; the rows of its images wait in the driver's memory, so they are bounded.
SHARD_BYTES: Final = 500 * 10**6
SHARD_IMAGES: Final = 20_000

# How often a shard is packed before what fails ends the run; its pieces stay, for whoever resumes it.
MAX_PACKINGS: Final = 3

# The pieces are there: they are packed before more images are begun.
PACK_PRIORITY: Final = 20


@dataclass(slots=True)
class Shard:
    """A shard in the making."""

    number: int
    pieces: list[Piece] = field(default_factory=list)
    tar_bytes: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    packings: int = 0
    future: Future | None = None

    def has_room(self, piece: Piece, images: int) -> bool:
        """Whether it may have one more piece; an empty one may have any."""
        return not self.pieces or (
            self.tar_bytes + piece.tar_bytes <= SHARD_BYTES and len(self.rows) + images <= SHARD_IMAGES
        )


class ShardBuffer(OutcomeBuffer):
    """Keeps Outcomes until the shard that has their images is in its place, and they are in the ledger.

    Parameters
    ----------
    job : Job
    ledger : Ledger
    run_id : str
        Tells the tasks of this run from those of an earlier one.
    storage_options : mapping, optional
        As in fsspec, for the destination.
    tenure : Tenure, optional
        As of `OutcomeBuffer`.
    """

    def __init__(
        self,
        job: Job,
        ledger: Ledger,
        run_id: str,
        storage_options: Mapping[str, Any] | None = None,
        tenure: Tenure | None = None,
    ) -> None:
        super().__init__(ledger, job.recipe.fingerprint, tenure)
        self._job = job
        self._client: Client | None = None
        self._run_id = run_id
        self._folder = PieceFolder(job, storage_options)
        self._fs, self._root = open_folder(job.destination, storage_options)
        self._name = re.compile(rf"{re.escape(job.id)}-(\d{{6,}})\.tar")
        self._open = Shard(0)
        self._closed: deque[Shard] = deque()
        # Of shards that are in their place, but may not be in the ledger yet.
        self._packed_pieces: list[Piece] = []

    def recover(self, now_s: float) -> None:
        """Bring what earlier runs have left into order: every image is in a shard that the ledger names, or in none."""
        with SeenKeys() as known:
            named = self._read_ledger(known)
            self._remove_unnamed(named)
            self._open = Shard(max(named, default=-1) + 1)
            for piece in self._folder.pieces():
                rows = self._folder.rows(piece)
                # A worker or a driver that died may have left a piece whose images were done again.
                if any(row["key"] in known for row in rows):
                    continue
                known.update(row["key"] for row in rows)
                shard = self._make_room(piece, len(rows))
                shard.rows += [row | {"output": member_url(row["output"], self._place(shard.number))} for row in rows]
                self._pack_here(now_s)
        self._close_shard()
        self._pack_here(now_s)
        self._folder.clear()
        self._folder.make()

    def connect(self, client: Client) -> None:
        """Take the cluster whose workers pack the shards."""
        self._client = client

    def add(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Take the Outcomes of a batch in; return them with the shard that their images are to be in."""
        stored = [outcome for outcome in outcomes if outcome.status == "stored"]
        others = [self._add_other(outcome) for outcome in outcomes if outcome.status != "stored"]
        if not stored:
            return others
        piece = Piece.named(split_member_url(stored[0].output)[1])
        assert piece is not None
        shard = self._make_room(piece, len(stored))
        place = self._place(shard.number)
        stored = [replace(each, output=member_url(split_member_url(each.output)[0], place)) for each in stored]
        shard.rows += [outcome_row(each, self._recipe_fingerprint) for each in stored]
        return [*stored, *others]

    def _add_other(self, outcome: Outcome) -> Outcome:
        """Take the Outcome in of an image that no piece has; a duplicate goes into the ledger with its original."""
        place = split_member_url(outcome.output)[1]
        for shard in (self._open, *self._closed):
            if place == self._place(shard.number):
                shard.rows.append(outcome_row(outcome, self._recipe_fingerprint))
                if shard is self._open and len(shard.rows) >= SHARD_IMAGES:
                    self._close_shard()
                return outcome
        super().add([outcome])
        return outcome

    def advance(self, now_s: float, *, is_last: bool) -> bool:
        """Pack the shards that are full, at the end all; return whether there is nothing to wait for."""
        if is_last:
            self._close_shard()
        for shard in self._closed:
            if shard.future is None:
                self._submit(shard)
        while self._closed and (packed := self._packed(self._closed[0])):
            self._publish(self._closed.popleft(), packed, now_s)
        return not self._closed

    def flush(self, now_s: float, *, is_last: bool = False) -> None:
        """Write what is here as one part of the ledger; if that fails, keep it for the next time."""
        if self._rows:
            # Another driver would have removed a shard that the ledger does not name, and taken the pieces of this run.
            self._confirm_lease()
        super().flush(now_s, is_last=is_last)
        if self._packed_pieces and not self._rows:
            self._folder.remove(self._packed_pieces)
            self._packed_pieces = []

    def close(self) -> None:
        """Leave nothing but shards."""
        # Another driver's pieces are in the same folder.
        self._confirm_lease()
        self._folder.clear(is_last=True)

    def _confirm_lease(self) -> None:
        if self._tenure:
            self._tenure.confirm()

    def _place(self, number: int) -> str:
        root = self._root if isinstance(self._fs, LocalFileSystem) else self._job.destination
        return f"{root.rstrip('/')}/{self._job.id}-{number:06}.tar"

    def _make_room(self, piece: Piece, images: int) -> Shard:
        """Add a piece to the open shard, or to the next one; return that."""
        if not self._open.has_room(piece, images):
            self._close_shard()
        self._open.pieces.append(piece)
        self._open.tar_bytes += piece.tar_bytes
        return self._open

    def _close_shard(self) -> None:
        if self._open.pieces:
            self._closed.append(self._open)
            self._open = Shard(self._open.number + 1)

    def _submit(self, shard: Shard) -> None:
        assert self._client is not None
        shard.packings += 1
        number = shard.number * MAX_PACKINGS + shard.packings
        key = task_key("pack", self._job.id, self._run_id, number)
        shard.future = self._client.submit(
            pack_shard, self._job.id, shard.pieces, key=key, priority=PACK_PRIORITY, pure=False
        )

    def _packed(self, shard: Shard) -> str:
        """Return under what name a shard is packed; nothing while it is not. What fails is tried again."""
        assert self._client is not None
        if self._client.status != "running":
            raise ClusterError("the Dask scheduler is gone; no image that was stored is lost: the job can be resumed")
        if shard.future is None or not shard.future.done():
            return ""
        # Of a worker that died with its answer, nothing is left.
        is_finished = shard.future.status == "finished"
        if is_finished and (names := gather_results(self._client, {shard.number: shard.future})):
            return str(names[shard.number])
        error = shard.future.exception() if shard.future.status == "error" else None
        if shard.packings >= MAX_PACKINGS:
            raise (
                error
                if isinstance(error, PipelineError)
                else ClusterError(f"cannot pack a shard: {error or 'its worker died'}")
            )
        log.warning("a shard is packed again: %s", error or "its worker died", extra={"job_id": self._job.id})
        self._submit(shard)
        return ""

    def _pack_here(self, now_s: float) -> None:
        """Pack the closed shards in this process: before the run begins, there may be no workers yet."""
        while self._closed:
            shard = self._closed.popleft()
            self._publish(shard, self._folder.pack(shard.pieces), now_s)
        if self._rows:
            super().flush(now_s, is_last=True)

    def _publish(self, shard: Shard, packed: str, now_s: float) -> None:
        """Move a shard to its place, and write its images into the ledger, by a lease that was renewed just now."""
        self._confirm_lease()
        place = self._place(shard.number)
        with storage_errors(StoreError, f"cannot store {redact(place)!r}"):
            move_whole(self._fs, self._folder.path_of(packed), self._path_of(shard.number))
        self._rows += shard.rows
        self._packed_pieces += shard.pieces
        self.flush(now_s)

    def _read_ledger(self, known: SeenKeys) -> set[int]:
        """Add the keys that the ledger has to the known ones; return the numbers of the shards that it names."""
        named: set[int] = set()
        for table in self._ledger.tables(["key", "output"]):
            known.update(table["key"].to_pylist())
            for output in table["output"].to_pylist():
                named.update(self._numbers([split_member_url(output)[1]]))
        return named

    def _remove_unnamed(self, named: set[int]) -> None:
        with storage_errors(StoreError, f"cannot clear {redact(self._job.destination)!r} of unfinished shards"):
            try:
                found = self._numbers(self._fs.ls(self._root, detail=False))
            except FileNotFoundError:
                return
            for number in found - named:
                self._fs.rm_file(self._path_of(number))

    def _path_of(self, number: int) -> str:
        return posixpath.join(self._root, posixpath.basename(self._place(number)))

    def _numbers(self, places: Sequence[str]) -> set[int]:
        """Return the numbers of those places that are shards of this job."""
        matches = (self._name.fullmatch(posixpath.basename(place)) for place in places)
        return {int(match[1]) for match in matches if match}
