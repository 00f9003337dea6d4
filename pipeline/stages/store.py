"""The stage that encodes a picture and writes it, whole or not at all."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec

from pipeline.domain import Recipe
from pipeline.errors import StoreError
from pipeline.stages.codec import encode_image
from pipeline.stages.picture import Picture


@dataclass(frozen=True, slots=True)
class Stored:
    """An image that was written.

    Attributes
    ----------
    output : str
        Its path or URL.
    width, height : int
        Pixels.
    channels : int
        1 to 4, alpha included.
    bytes_out : int
        The file's size.
    sha256 : str
        Of the file's bytes.
    """

    output: str
    width: int
    height: int
    channels: int
    bytes_out: int
    sha256: str


def store_image(
    picture: Picture,
    key: str,
    destination: str,
    recipe: Recipe,
    storage_options: Mapping[str, Any] | None = None,
) -> Stored:
    """Encode a picture and write it to ``destination/key`` with its format's suffix.

    Nothing half-written is ever seen under that name: a local file is written under another name in the same folder
    and then moved, an object is put in one piece. What was there before is replaced.

    Parameters
    ----------
    picture : Picture
    key : str
        The output's name without its suffix, relative to the destination; it may have folders.
    destination : str
        A folder, or a URL that fsspec writes to.
    recipe : Recipe
    storage_options : mapping, optional
        What fsspec needs for that URL.

    Raises
    ------
    StoreError
        If the picture cannot be encoded or written, or if the key leads out of the destination.
    """
    check_key(key, destination)
    encoded = encode_image(picture, recipe)
    folder = local_folder(destination)
    name = key + encoded.suffix
    if folder is None:
        output = f"{destination.rstrip('/')}/{name}"
        _put_object(output, encoded.data, storage_options or {})
    else:
        output = str(folder / name)
        _write_file(Path(output), encoded.data)
    sha256 = hashlib.sha256(encoded.data).hexdigest()
    image = picture.image
    return Stored(output, image.width, image.height, len(image.getbands()), len(encoded.data), sha256)


def check_key(key: str, destination: str) -> None:
    """Refuse a key that does not name a file below the destination.

    Raises
    ------
    StoreError
        If the key is empty, absolute, or has a part ``..`` or a NUL.
    """
    path = PurePosixPath(key)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in key or key.endswith("/"):
        raise StoreError(f"cannot store {key!r} in {destination!r}: a key is a relative name without '..'")


def local_folder(destination: str) -> Path | None:
    """Give the folder that a path or a ``file://`` URL names; None for any other URL."""
    if destination.startswith("file://"):
        return Path(unquote(urlsplit(destination).path))
    return None if "://" in destination else Path(destination)


def _write_file(path: Path, content: bytes) -> None:
    # Not `tempfile`, whose files only their owner can read; and short, so that any name that fits can be written.
    partial = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        try:
            _write_new(partial, content)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_new(partial, content)
        partial.replace(path)
    except OSError as error:
        raise _cannot_store(str(path), error) from error
    finally:
        with suppress(OSError):  # After a success it has moved; after a failure there may not even be a folder.
            partial.unlink()


def _write_new(path: Path, content: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[file.write(remaining) :]


def _put_object(url: str, content: bytes, storage_options: Mapping[str, Any]) -> None:
    try:
        filesystem, path = fsspec.url_to_fs(url, **storage_options)
        try:
            filesystem.pipe_file(path, content)
        except FileNotFoundError:  # Object stores have no folders, but other file systems do.
            filesystem.makedirs(filesystem._parent(path), exist_ok=True)
            filesystem.pipe_file(path, content)
    except Exception as error:  # Translated, not swallowed: every back end of fsspec raises errors of its own.
        raise _cannot_store(url, error) from error


def _cannot_store(output: str, error: Exception) -> StoreError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return StoreError(f"cannot store {output!r}: {reason}")
