"""File systems as the pipeline opens them; files that are whole or absent: by rename, or by one PUT."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import DestinationError, PipelineError
from pipeline.local_files import move_file, replace_file
from pipeline.urls import OBJECT_STORES, redact, redact_within, scheme_of

# Concurrent requests of one process to one store; botocore's own ten would be the limit of a run.
STORE_CONNECTIONS: Final = 32

# How often S3 is asked in all, with botocore's backoff in between: over half a minute of 503 SlowDown.
STORE_ATTEMPTS: Final = 8

# The same where somebody waits, who may have misspelt the endpoint: a few seconds.
LOOK_ATTEMPTS: Final = 4

_CREDENTIALS: Final = "give storage_options=, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
# What S3 answers with 400 to credentials that it does not take.
REFUSALS: Final = frozenset({"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"})

_S3: Final = frozenset({"s3", "s3a"})


def absolute(place: str | os.PathLike[str]) -> str:
    """Return a local path made absolute, so that it means the same in every process; a URL, or nothing, as it is."""
    place = os.fspath(place)
    # A glob is no path, so pathlib has no say here.
    return place if "://" in place or not place else os.path.abspath(os.path.expanduser(place))  # noqa: PTH100, PTH111


def open_folder(
    url: str, storage_options: Mapping[str, Any] | None = None, *, attempts: int = STORE_ATTEMPTS
) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system that `url` is on, and its path there (absolute, ``~`` expanded, for a local folder).

    Listings are not cached: what another process has written is seen. As everywhere in fsspec, nothing in a ``file://``
    URL is unquoted: ``%20`` in it is three characters of a name.

    Parameters
    ----------
    url : str
    storage_options : mapping, optional
        As in fsspec. What they say of retries and connections goes before ours.
    attempts : int
        How often S3 is asked before it is an error; 1 for a caller that tries again itself.
    """
    if "://" not in url:
        return LocalFileSystem(), absolute(url)
    options = {"use_listings_cache": False, **(storage_options or {})}
    is_s3 = scheme_of(url) in _S3
    if is_s3 and "@" in url.partition("://")[2].partition("/")[0]:
        # botocore would quote it.
        raise ValueError(f"a bucket's name has no '@'; {_CREDENTIALS}")
    fs, path = fsspec.core.url_to_fs(url, **(_s3_options(options, attempts) if is_s3 else options))
    if is_s3:
        # botocore waits longer each time, so s3fs is not to do so too; only a body that breaks off is its to ask for.
        fs.retries = min(attempts, 2)
    return fs, path


def require_no_secret(destination: str) -> None:
    """Raise DestinationError if a destination's URL has a user, a password or a query: outputs and ledger show it."""
    shown = redact(destination)
    if shown.partition("#")[0] != destination.partition("#")[0]:
        raise DestinationError(
            f"cannot write to {shown!r}: a destination is written down with every image, so it must have no user name, "
            "password or query; give credentials as storage_options= or in the environment"
        )


def require_place_of_report(path: Path) -> None:
    """Raise DestinationError unless a report can be written there: better now than after a night's run."""
    if path.is_dir() or not path.parent.is_dir():
        raise DestinationError(f"cannot write the report {str(path)!r}: it must be a file in a folder that exists")


def write_whole(fs: fsspec.AbstractFileSystem, path: str, data: bytes, *, makes_folder: bool = True) -> None:
    """Write a file such that whoever looks sees all of it or none of it; its folder is made on demand.

    What was there before is replaced. If it fails, nothing is left behind; what is raised is the file system's own
    error, which `storage_errors` translates.
    """
    write = replace_file if isinstance(fs, LocalFileSystem) else fs.pipe_file
    try:
        write(path, data)
    except FileNotFoundError:
        # What an object store misses is the bucket: a misspelt name must not make a new one.
        if not makes_folder or is_object_store(fs):
            raise
        fs.makedirs(fs._parent(path), exist_ok=True)
        write(path, data)


def make_folder(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Make a folder, where there are folders: in an object store, a misspelt name must not make a new bucket."""
    if not is_object_store(fs):
        fs.makedirs(path, exist_ok=True)


def move_whole(fs: fsspec.AbstractFileSystem, path: str, target: str) -> None:
    """Give a file another name in the same store, such that whoever looks sees all of it there or none of it.

    An object store copies it by itself; what is there appears when it is whole. Locally, what has that name already is
    not replaced: it is an error.
    """
    if isinstance(fs, LocalFileSystem):
        move_file(path, target)
    else:
        # Not `mv`, which takes brackets in a name for a pattern.
        try:
            fs.cp_file(path, target)
        except NotImplementedError:
            # FTP's server, for one, renames but does not copy.
            fs.mv(path, target)
        else:
            fs.rm_file(path)


async def put_whole(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Write a file as `write_whole` does, while other coroutines run."""
    if is_object_store(fs) and isinstance(fs, AsyncFileSystem):
        # It lives on the loop of fsspec's own thread, which may or may not be ours.
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fs._pipe_file(path, data), fs.loop))
    else:
        await asyncio.to_thread(write_whole, fs, path, data)


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """What an S3 server answered that is no success.

    Attributes
    ----------
    status : int
        Of HTTP.
    code, message : str
        Such as ``SlowDown``, "Please reduce your request rate."; of a HEAD request the status and its phrase.
    retry_after : str or None
        The header of that name.
    """

    status: int
    code: str
    message: str
    retry_after: str | None = None


def answer_behind(error: BaseException) -> StoreAnswer | None:
    """Return what the server answered, of an error that botocore or s3fs made of that; None if it is another error."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if not isinstance(response, Mapping) or "Error" not in response:
        return None
    about, metadata = response["Error"], response.get("ResponseMetadata", {})
    return StoreAnswer(
        metadata.get("HTTPStatusCode", 0),
        str(about.get("Code", "")),
        " ".join(str(about.get("Message", "")).split()),
        metadata.get("HTTPHeaders", {}).get("retry-after"),
    )


def is_missing_bucket(error: BaseException) -> bool:
    """Whether an error says that there is not even the bucket, which nothing of ours makes."""
    answer = answer_behind(error)
    return answer is not None and answer.code == "NoSuchBucket"


@contextmanager
def storage_errors(kind: type[PipelineError], what: str) -> Iterator[None]:
    """Make an error of one kind of whatever is raised while a file system is used; ours pass as they are.

    Every file system of fsspec has errors of its own, and those of the packages that it is made of (botocore, aiohttp,
    google-auth …): no list of them would be whole.

    Parameters
    ----------
    kind : type of PipelineError
    what : str
        What fails, on what: ``cannot store 's3://bucket/cat.jpg'``. To be free of secrets.

    Raises
    ------
    PipelineError
        Of that kind, in one line: `what`, a colon and the reason.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        raise kind(f"{what}: {reason_of(error)}") from error


def is_object_store(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether a file system has no real folders, and puts a file whole or not at all."""
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return not OBJECT_STORES.isdisjoint(protocols)


def _s3_options(options: Mapping[str, Any], attempts: int) -> dict[str, Any]:
    # fsspec's configuration (FSSPEC_S3) would be replaced by what is given here: it is merged.
    configured = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    config = {
        "max_pool_connections": STORE_CONNECTIONS,
        "retries": {"mode": "standard", "total_max_attempts": attempts},
        **(configured if isinstance(configured, Mapping) else {}),
        **(options.get("config_kwargs") or {}),
    }
    return {**options, "config_kwargs": config}


def reason_of(error: Exception) -> str:
    """Say in one line and without secrets what an error of a file system means, and what to do about credentials."""
    if answer := answer_behind(error):
        return _reason_of_answer(answer)
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    if isinstance(error, PermissionError):
        return "permission denied"
    if type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError"}:
        return f"there are no credentials; {_CREDENTIALS}"
    if type(error).__name__ == "EndpointConnectionError":
        return f"{redact_within(str(error))} (storage_options={{'endpoint_url': ...}} or AWS_ENDPOINT_URL says where)"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return redact_within(" ".join(str(text).split()))


def _reason_of_answer(answer: StoreAnswer) -> str:
    said = f"{answer.status} {answer.code}" if answer.code != str(answer.status) else answer.code
    said = redact_within(f"{said}: {answer.message}" if answer.message else said)
    if answer.code == "NoSuchBucket":
        return "there is no such bucket at that endpoint (storage_options= or AWS_ENDPOINT_URL says which)"
    if answer.status == 404:
        return "no such file or folder"
    if answer.status in {401, 403} or answer.code in REFUSALS:
        return f"permission denied ({said}): check the credentials and what they allow; {_CREDENTIALS}"
    return f"the store answers {said}"
