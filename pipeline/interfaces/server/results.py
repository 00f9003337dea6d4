"""``/results`` and ``/sources``: the images of jobs whose destination is the server's own."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc
from PIL import Image
from tornado.iostream import StreamClosedError

from pipeline.interfaces.server.base import Guarded
from pipeline.interfaces.server.errors import RequestError
from pipeline.interfaces.server.presenting import job_folder, uploads_folder

_SHOWABLE: Final = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")

_CHUNK_BYTES: Final = 256 * 2**10


class Results(Guarded):
    """``GET /results/ID/KEY``: a stored image."""

    async def get(self, job_id: str, key: str) -> None:
        """Send the image, as nothing but an image."""
        row = await self.find_row(job_id, key)
        path = Path(row["output"]) if row["output"] else None
        await self.send(path, job_folder(self.services.options.root, job_id), key)

    async def find_row(self, job_id: str, key: str) -> dict[str, Any]:
        """Return the row of the ledger that has the key; the key itself never becomes a path."""
        await self.services.show(job_id, self.client)
        row = await self.services.call_files(self._read_row, job_id, key)
        if row is None:
            raise RequestError(HTTPStatus.NOT_FOUND, f"job {job_id!r} has no image {key[:200]!r}")
        return row

    def _read_row(self, job_id: str, key: str) -> dict[str, Any] | None:
        from pipeline.runner.ledger import Ledger

        job = self.services.store.load_job(job_id)
        if job.destination != str(job_folder(self.services.options.root, job_id)):
            raise RequestError(HTTPStatus.NOT_FOUND, f"the results of job {job_id!r} are not on this server")
        for table in Ledger(job.destination, job_id).tables(["key", "url", "status", "output"], newest_first=True):
            if rows := table.filter(pc.equal(table["key"], key)).to_pylist():
                found: dict[str, Any] = rows[-1]
                return found
        return None

    async def send(self, path: Path | None, folder: Path, key: str) -> None:
        """Send a file that lies in a folder, and that is an image."""
        kind = await self.services.call_files(_kind_of, path, folder)
        if path is None or kind is None:
            raise RequestError(HTTPStatus.NOT_FOUND, f"no image {key[:200]!r} is there")
        self.set_header("Content-Type", kind)
        self.set_header("Content-Security-Policy", "default-src 'none'; sandbox")
        self.set_header("Content-Disposition", "inline")
        with path.open("rb") as file:
            while chunk := await self.services.call_files(file.read, _CHUNK_BYTES):
                self.write(chunk)
                try:
                    async with asyncio.timeout(self.services.options.limits.socket_deadline_s):
                        await self.flush()
                except (StreamClosedError, TimeoutError):
                    # A client that reads nothing does not keep the file open.
                    self.request.connection.stream.close()  # type: ignore[union-attr]
                    return
        self.finish()


class Sources(Results):
    """``GET /sources/ID/KEY``: an uploaded image as it came."""

    async def get(self, job_id: str, key: str) -> None:
        """Send the original, if it is an image that browsers show."""
        row = await self.find_row(job_id, key)
        await self.send(Path(row["url"]), uploads_folder(self.services.options.root, job_id), key)


def _kind_of(path: Path | None, folder: Path) -> str | None:
    """Return the content type of an image below a folder; None for anything else, links out of it included."""
    if path is None or not path.is_absolute():
        return None
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()) or not real.is_file():
        return None
    try:
        with Image.open(real, formats=_SHOWABLE) as image:
            return Image.MIME.get(image.format or "")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
