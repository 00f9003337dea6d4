"""Sealing: what is secret and must be written down can be read again by whoever has the key, and by nobody else.

A signed URL is needed again, to retry or resume its job, but ledgers, lists and Redis are read by others. So it stands
there as it may be shown, and beside that sealed: encrypted and authenticated (Fernet: AES-128-CBC and HMAC-SHA256).

The key is made of ``PIPELINE_SECRET``, which several machines may share, or else is a file in the user's data folder,
made when it is first needed.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.domain import Item, Job
from pipeline.errors import SealError
from pipeline.urls import may_be_local, redact

if TYPE_CHECKING:
    # Imported on use: most jobs have no secrets.
    from cryptography.fernet import Fernet

KEY_FILE: Final = "sealing.key"

_PREFIX: Final = "sealed:"
_SALT: Final = b"image-pipeline sealing 1"


class Seal:
    """Seals texts, and opens those that were sealed with the same key.

    Parameters
    ----------
    data_dir : Path
        Where the key's file is, or will be.
    secret : str, optional
        ``PIPELINE_SECRET``: what the key is made of instead.
    """

    def __init__(self, data_dir: Path, secret: str | None = None) -> None:
        self._data_dir = data_dir
        self._secret = secret

    def seal(self, text: str, purpose: str) -> str:
        """Seal a text for one purpose: where another is meant, it cannot be opened.

        Raises
        ------
        SealError
            If there is no key and none can be made.
        """
        return _PREFIX + self._fernet.encrypt(f"{purpose}\0{text}".encode("utf-8", "surrogatepass")).decode()

    def open(self, sealed: str, purpose: str) -> str:
        """Return the text that was sealed for the purpose.

        Raises
        ------
        SealError
            If it was sealed with another key or for another purpose, or is not sealed.
        """
        from cryptography.fernet import InvalidToken

        try:
            found = self._fernet.decrypt(sealed.removeprefix(_PREFIX).encode()).decode("utf-8", "surrogatepass")
        except InvalidToken:
            found = ""
        meant, is_sealed, text = found.partition("\0")
        if not is_sealed or meant != purpose:
            raise SealError(
                f"cannot open {purpose}: it was sealed with another key; set PIPELINE_SECRET to the same text on every "
                "machine that runs, resumes or retries the job"
            )
        return text

    @functools.cached_property
    def _fernet(self) -> Fernet:
        from cryptography.fernet import Fernet

        return Fernet(_derived(self._secret) if self._secret else _key_in(self._data_dir))


def is_sealed(text: str) -> bool:
    """Whether a text is a sealed one."""
    return text.startswith(_PREFIX)


def has_secret(url: str) -> bool:
    """Whether a URL has a part that may not be shown, and so must not be written down as it is."""
    return redact(url) != url


def is_believed(url: str, destination: str) -> bool:
    """Whether a URL that stands beside a destination, not sealed, is asked for.

    Others may write into a store: what they add there must not name the files of whoever goes on with the job.
    """
    return "://" not in destination or not may_be_local(url)


def seal_url(item: Item, job: Job, seal: Seal) -> Item:
    """Return an Item with its URL sealed, if that has a secret or is not believed without.

    Raises
    ------
    SealError
        If it has a secret, and there is no key and none can be made.
    """
    if has_secret(item.url):
        return replace(item, sealed_url=seal.seal(item.url, _url_purpose(job.id)))
    if not is_believed(item.url, job.destination):
        # Without a key the job runs nevertheless; only a retry needs what is sealed, and says so.
        with contextlib.suppress(SealError):
            return replace(item, sealed_url=seal.seal(item.url, _url_purpose(job.id)))
    return item


def seal_collection(job: Job, seal: Seal) -> Job:
    """Return a Job with its collection sealed, if that has a secret: so it can be written down."""
    if not has_secret(job.collection):
        return job
    return replace(job, collection=seal.seal(job.collection, _collection_purpose(job.id)))


def require_open(job: Job, seal: Seal) -> Job:
    """Return a Job as it was before its collection was sealed, if it was.

    Raises
    ------
    SealError
        If it was sealed with another key.
    """
    if not is_sealed(job.collection):
        return job
    return replace(job, collection=seal.open(job.collection, _collection_purpose(job.id)))


def list_purpose(job_id: str) -> str:
    """Return for what the URLs are sealed in the list that a job keeps beside its ledger."""
    return f"the list of job {job_id!r}"


def open_url(shown: str, sealed: str, job_id: str, seal: Seal) -> str:
    """Return the URL of what the ledger of a job has written down of it.

    Raises
    ------
    SealError
        If it was sealed with another key, or for another job.
    """
    return seal.open(sealed, _url_purpose(job_id)) if sealed else shown


def _url_purpose(job_id: str) -> str:
    return f"the URL of an image of job {job_id!r}"


def _collection_purpose(job_id: str) -> str:
    return f"the collection of job {job_id!r}"


def _derived(secret: str) -> bytes:
    # The text may be one that a person can remember: guessing is to be slow.
    key = hashlib.scrypt(secret.encode("utf-8", "surrogatepass"), salt=_SALT, n=2**14, r=8, p=1, dklen=32)
    return base64.urlsafe_b64encode(key)


def _key_in(folder: Path) -> bytes:
    path = folder.expanduser() / KEY_FILE
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes().strip()
        if len(base64.urlsafe_b64decode(key)) != 32:
            raise ValueError("it holds no key")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SealError(
            f"cannot use the key in {str(path)!r}: {reason}; "
            "set PIPELINE_SECRET, or PIPELINE_DATA_DIR to a folder of yours"
        ) from error
    return key


def _make_key(path: Path) -> None:
    """Make the file whole and for nobody but this user, unless another process is first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.urlsafe_b64encode(secrets.token_bytes(32)))
            file.flush()
            os.fsync(file.fileno())
        # A link, since it fails where there is one already; a rename would take the place of the other's key.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(partial)
    finally:
        partial.unlink(missing_ok=True)
