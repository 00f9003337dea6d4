"""Pieces of shards: what one batch adds to a shard, written by a worker as one file and packed by another.

A piece is a file ``_shards/JOB/CHANCE-BYTES.piece`` below the destination: so many bytes of a tar file without its
end, then the images' rows of the ledger, as JSON. Tar files are joined by putting them one after the other, so a shard
is packed without looking into its pieces; and the rows say what a piece is worth to a run that finds it after a kill.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fsspec

from pipeline.domain import Job
from pipeline.errors import StoreError
from pipeline.stages.sample import END_OF_TAR
from pipeline.storage import make_folder, open_folder, storage_errors, write_whole
from pipeline.urls import redact

_PIECE: Final = re.compile(r"[0-9a-f]{16}-(\d+)\.piece")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece's name and how many of its bytes are of the tar file."""

    name: str
    tar_bytes: int

    @classmethod
    def named(cls, name: str) -> Piece | None:
        """Return the piece that a file's name tells of; None for the name of another file."""
        match = _PIECE.fullmatch(name)
        return cls(name, int(match[1])) if match else None


class PieceFolder:
    """The folder of a job's pieces; a shard is packed in it too, so that none is seen before it is whole.

    Parameters
    ----------
    job : Job
    storage_options : mapping, optional
        As in fsspec, for the destination.
    """

    def __init__(self, job: Job, storage_options: Mapping[str, Any] | None = None) -> None:
        place = posixpath.join(job.destination, "_shards", job.id)
        with storage_errors(StoreError, f"cannot open {redact(place)!r}"):
            self.fs: fsspec.AbstractFileSystem
            self.fs, self.path = open_folder(place, storage_options)

    def make(self) -> None:
        """Make the folder; the driver alone does: what a worker writes after the job's end is not to make it anew."""
        with storage_errors(StoreError, f"cannot make {self.path!r}"):
            make_folder(self.fs, self.path)

    def path_of(self, name: str) -> str:
        """Return the path of a file in the folder."""
        return posixpath.join(self.path, name)

    def write(self, samples: Sequence[bytes], rows: Sequence[Mapping[str, Any]]) -> Piece:
        """Write a batch as a piece, whole or not at all.

        Parameters
        ----------
        samples : sequence of bytes
            As `make_sample` returns them.
        rows : sequence of mapping
            Their rows of the ledger.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        tar = b"".join(samples)
        piece = Piece(f"{secrets.token_hex(8)}-{len(tar)}.piece", len(tar))
        path = self.path_of(piece.name)
        with storage_errors(StoreError, f"cannot store {path!r}"):
            write_whole(self.fs, path, tar + json.dumps(rows).encode(), makes_folder=False)
        return piece

    def pieces(self) -> list[Piece]:
        """List the pieces, those of earlier runs included.

        Raises
        ------
        StoreError
            If the folder cannot be listed.
        """
        return [piece for path in self._ls() if (piece := Piece.named(posixpath.basename(path)))]

    def rows(self, piece: Piece) -> list[dict[str, Any]]:
        """Read the rows of a piece.

        Raises
        ------
        StoreError
            If it cannot be read.
        """
        path = self.path_of(piece.name)
        with storage_errors(StoreError, f"cannot read {path!r}"):
            rows: list[dict[str, Any]] = json.loads(self.fs.cat_file(path)[piece.tar_bytes :])
        return rows

    def pack(self, pieces: Sequence[Piece]) -> str:
        """Join pieces to a shard; return its name in this folder, which nobody takes for that of a shard.

        Raises
        ------
        StoreError
            If it cannot be read or written.
        """
        name = f"{secrets.token_hex(8)}.packed"
        failing = f"cannot pack a shard in {self.path!r}"
        with storage_errors(StoreError, failing), self.fs.open(self.path_of(name), "wb") as shard:
            for piece in pieces:
                # Read whole: some servers answer a range with the checksum of all, which botocore refuses.
                shard.write(memoryview(self.fs.cat_file(self.path_of(piece.name)))[: piece.tar_bytes])
            shard.write(END_OF_TAR)
        return name

    def remove(self, pieces: Sequence[Piece]) -> None:
        """Remove pieces that nobody needs any more."""
        self._remove([self.path_of(piece.name) for piece in pieces])

    def clear(self, *, is_last: bool = False) -> None:
        """Remove all that is in the folder; at the end of a job, the folder too."""
        self._remove(self._ls())
        if is_last:
            # The folder of all jobs goes with its last one.
            with contextlib.suppress(OSError):
                self.fs.rmdir(self.path)
                self.fs.rmdir(posixpath.dirname(self.path))

    def _remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            # A worker that still writes moves its file in this moment; what is left does no harm.
            with storage_errors(StoreError, f"cannot remove {path!r}"), contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(path)

    def _ls(self) -> list[str]:
        with storage_errors(StoreError, f"cannot list {self.path!r}"):
            try:
                return sorted(self.fs.ls(self.path, detail=False))
            except FileNotFoundError:
                return []
