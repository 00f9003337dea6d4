"""Where a collection is: a file system, a path there, and the same place as people write it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Any, Final, Literal, Self, cast
from urllib.parse import urljoin

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import SourceError
from pipeline.sources.folder import Entry, list_local, list_remote
from pipeline.storage import LOOK_ATTEMPTS, is_missing_bucket, open_folder, storage_errors
from pipeline.urls import redact, scheme_of

_WEB: Final = frozenset({"http", "https"})
_QUERY_OR_FRAGMENT: Final = re.compile("[?#]")

# Seconds without a byte; in all, a long manifest may take as long as the run that reads it.
_WEB_PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Location:
    """A file or folder, there or not.

    Attributes
    ----------
    fs : fsspec.AbstractFileSystem
    path : str
        As `fs` wants it.
    url : str
        The absolute path if it is local; else the URL as it was given, whose start may say more than `path` does.
    """

    fs: AbstractFileSystem
    path: str
    url: str

    @classmethod
    def of(cls, url: str, storage_options: Mapping[str, Any] | None = None) -> Self:
        """Find the file system of a path or URL.

        Raises
        ------
        SourceError
            If its protocol is unknown, not installed or refuses the options.
        """
        with reading(url):
            # Options are for stores; what they mean to the web's file system is something else.
            options = _web_options() if is_web(url) else storage_options
            fs, path = open_folder(url, options, attempts=LOOK_ATTEMPTS)
        return cls(fs, path, path if isinstance(fs, LocalFileSystem) else url)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's file system."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def is_web(self) -> bool:
        """Whether it is asked for over HTTP."""
        return is_web(self.url)

    @property
    def file_name(self) -> str:
        """What its path ends in: the name that tells what kind of file it is."""
        return file_name_of(self.url)

    def open(self) -> IO[bytes]:
        """Open this file.

        Raises
        ------
        OSError
            Or whatever else the file system raises.
        """
        file = self.fs.open(self.path, "rb")
        if not self.is_web or file.size is not None:
            return cast("IO[bytes]", file)
        # A server that does not serve parts: it would lose patience while a run takes its time.
        with file:
            copy = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
            try:
                shutil.copyfileobj(file, copy)
                copy.seek(0)
            except BaseException:
                copy.close()
                raise
        return copy

    def resolve(self, written: str) -> str:
        """Return the URL or path of what this file calls `written`: relative to its folder, unless it is whole."""
        if self.is_web:
            return urljoin(self.url, written)
        is_whole = written.startswith("/") or "://" in written
        return written if is_whole else f"{self.url.rstrip('/').rpartition('/')[0]}/{written}"

    def find_kind(self) -> Literal["file", "folder", "other", "missing"]:
        """Ask the file system what is there.

        Raises
        ------
        SourceError
            If it does not answer, or not to us.
        """
        with reading(self.url):
            try:
                kind = self.fs.info(self.path)["type"]
            except (FileNotFoundError, NotADirectoryError) as error:
                if is_missing_bucket(error):
                    raise
                return "missing"
        if kind == "directory":
            return "folder"
        return "file" if kind == "file" else "other"

    def below(self, relative: str) -> Self:
        """Return what lies at a path below this folder; the folder itself for the empty path."""
        if not relative:
            return self
        return type(self)(self.fs, _with_slash(self.path) + relative, _with_slash(self.url) + relative)

    def list_folder(self) -> Iterator[list[Entry]]:
        """Yield what is directly in this folder, in pages and in any order.

        Links to folders are left out, as are devices and pipes; a link to nothing is a file, one that cannot be read.

        Raises
        ------
        OSError
            Or whatever else the file system raises.
        """
        return list_local(self.path) if self.is_local else list_remote(self.fs, self.path)


def is_web(url: str) -> bool:
    """Whether a URL is asked for over HTTP."""
    return scheme_of(url) in _WEB


def file_name_of(url: str) -> str:
    """Return what the path of a URL ends in."""
    path = _QUERY_OR_FRAGMENT.split(url, maxsplit=1)[0] if is_web(url) else url
    return path.rstrip("/").rpartition("/")[2]


def reading(url: str) -> AbstractContextManager[None]:
    """Make a SourceError of whatever is raised while `url` is read.

    A ValueError says what is wrong with the contents.
    """
    return storage_errors(SourceError, f"cannot read {redact(url)!r}")


def encodable(url: str) -> str:
    """Return `url` such that it can be written as UTF-8, in JSON, Redis and Parquet.

    A file's name on Linux need not be UTF-8. What is not becomes U+FFFD: fetching then fails and says which file it is.
    """
    return url.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _web_options() -> dict[str, Any]:
    # Imported on use, since it takes a while.
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_WEB_PATIENCE_S, sock_read=_WEB_PATIENCE_S)
    # Of a body that is compressed on the way, parts would be parts of something else.
    return {"client_kwargs": {"timeout": timeout, "headers": {"Accept-Encoding": "identity"}}}


def _with_slash(path: str) -> str:
    return path if not path or path.endswith("/") else path + "/"
