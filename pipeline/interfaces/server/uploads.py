"""Uploads: a multipart body is parsed as it comes, and its files are written to a folder of the server's choice."""

from __future__ import annotations

import posixpath
import shutil
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import IO, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pipeline.interfaces.server.errors import RequestError
from pipeline.interfaces.server.options import Limits
from pipeline.interfaces.server.presenting import UPLOADS
from pipeline.sources.keys import clean_component

_MAX_FIELD_BYTES: Final = 64 * 2**10


@dataclass(slots=True)
class _Part:
    """The part of the body that is being read."""

    headers: dict[str, str] = field(default_factory=dict)
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    name: str = ""
    file: IO[bytes] | None = None
    size: int = 0


class UploadReceiver:
    """Takes the body of an upload in pieces.

    A client's file names never choose a path: ``0007-cat.jpg`` is the seventh file, with its name cleaned.

    Parameters
    ----------
    content_type : str
        The request's.
    folder : Path
        The new job's own, in which a folder is made for the files; `discard` removes it.
    limits : Limits

    Raises
    ------
    RequestError
        From each method: 400 if the body is malformed, 413 if it is too much.
    """

    def __init__(self, content_type: str, folder: Path, limits: Limits) -> None:
        _, parameters = parse_options_header(content_type)
        if not parameters.get(b"boundary"):
            raise RequestError(HTTPStatus.BAD_REQUEST, "the upload has no boundary in its Content-Type")
        self.files: list[Path] = []
        self.options = b""
        self._job_folder = folder
        self._folder = folder / UPLOADS
        self._limits = limits
        self._part = _Part()
        self._is_whole = False
        try:
            self._parser = MultipartParser(
                parameters[b"boundary"],
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": lambda data, start, end: self._part.header_name.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._part.header_value.extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open_part,
                    "on_part_data": self._take,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed(error) from error

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(error) from error

    def finish(self) -> None:
        """Make sure that the body was whole and had files."""
        if not self._is_whole:
            raise RequestError(HTTPStatus.BAD_REQUEST, "the upload ends in the middle of a part")
        if not self.files:
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "the upload has no files; allowed is one or more")

    def discard(self) -> None:
        """Remove what was written."""
        self._close()
        shutil.rmtree(self._job_folder, ignore_errors=True)

    def _begin_part(self) -> None:
        self._part = _Part()

    def _end_header(self) -> None:
        part = self._part
        part.headers[part.header_name.decode("latin-1").lower()] = part.header_value.decode("latin-1")
        part.header_name.clear()
        part.header_value.clear()

    def _open_part(self) -> None:
        disposition, parameters = parse_options_header(self._part.headers.get("content-disposition", ""))
        if disposition != b"form-data":
            raise RequestError(HTTPStatus.BAD_REQUEST, "a part of the upload is no form-data")
        self._part.name = parameters.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in parameters:
            if self._part.name != "options" or self.options:
                raise RequestError(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    f"no field {self._part.name[:100]!r} is possible here; an upload has files, and options once",
                )
            return
        if len(self.files) == self._limits.files_per_upload:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the upload has too many files; allowed are {self._limits.files_per_upload}",
            )
        written = posixpath.basename(parameters[b"filename"].decode("utf-8", "replace").replace("\\", "/"))
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{len(self.files) + 1:04}-{clean_component(written, 100)}"
        self._part.file = path.open("xb")
        self.files.append(path)

    def _take(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        part.size += end - start
        if part.file:
            if part.size > self._limits.file_bytes:
                raise RequestError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"the file {self.files[-1].name[5:]!r} is too large; allowed are {self._limits.file_bytes} bytes",
                )
            part.file.write(memoryview(data)[start:end])
        elif part.size > _MAX_FIELD_BYTES:
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the options of the upload are too large")
        else:
            self.options += data[start:end]

    def _end_part(self) -> None:
        self._close()

    def _end(self) -> None:
        self._is_whole = True

    def _close(self) -> None:
        if self._part.file:
            self._part.file.close()
            self._part.file = None


def _malformed(error: FormParserError) -> RequestError:
    return RequestError(HTTPStatus.BAD_REQUEST, f"the upload is malformed: {error}")
