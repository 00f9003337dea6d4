"""The stage that encodes a picture and writes it, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipeline.domain import Recipe
from pipeline.errors import StoreError
from pipeline.stages.codec import Encoded, encode_image
from pipeline.stages.picture import Picture
from pipeline.storage import open_folder, put_whole, storage_errors, write_whole
from pipeline.urls import redact


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


@dataclass(frozen=True, slots=True)
class Ready:
    """An image that is encoded, to be written: its bytes, and what it will be as `Stored`, its name for the output."""

    data: bytes
    described: Stored

    @property
    def name(self) -> str:
        """Its name below the destination."""
        return self.described.output

    def stored(self, output: str) -> Stored:
        """Return it as written there."""
        return replace(self.described, output=output)


def write_image(ready: Ready, destination: str, storage_options: Mapping[str, Any] | None = None) -> Stored:
    """Write an encoded image to the destination.

    Nothing half-written is ever seen under its name: a local file is written under another name in the same folder
    and then moved, an object is put in one piece. What was there before is replaced.

    Parameters
    ----------
    ready : Ready
    destination : str
        A folder, or a URL that fsspec writes to.
    storage_options : mapping, optional
        What fsspec needs for that URL.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    with _storing(destination, ready):
        fs, folder = open_folder(destination, storage_options)
        path = _below(folder, ready.name)
        write_whole(fs, path, ready.data)
    return ready.stored(path if isinstance(fs, LocalFileSystem) else _below(destination, ready.name))


def prepare_image(picture: Picture, key: str, destination: str, recipe: Recipe) -> Ready:
    """Encode a picture, to be written to ``destination/key`` with its format's suffix.

    Parameters
    ----------
    picture : Picture
    key : str
        The output's name without its suffix, relative to the destination; it may have folders.
    destination : str
    recipe : Recipe

    Raises
    ------
    StoreError
        If it cannot be encoded, or if the key leads out of the destination.
    """
    check_key(key, destination)
    encoded = encode_image(picture, recipe)
    return Ready(encoded.data, describe_stored(picture, encoded, key + encoded.suffix))


def describe_stored(picture: Picture, encoded: Encoded, output: str) -> Stored:
    """Say what was written of a picture, and where."""
    image = picture.image
    sha256 = hashlib.sha256(encoded.data).hexdigest()
    return Stored(output, image.width, image.height, len(image.getbands()), len(encoded.data), sha256)


async def put_image(ready: Ready, destination: str, storage_options: Mapping[str, Any] | None = None) -> Stored:
    """Put an encoded image into an object store, while other coroutines run.

    Raises
    ------
    StoreError
        If it cannot be written; there is nothing of it then.
    """
    with _storing(destination, ready):
        fs, folder = open_folder(destination, storage_options)
        await put_whole(fs, _below(folder, ready.name), ready.data)
    return ready.stored(_below(destination, ready.name))


def check_key(key: str, destination: str) -> None:
    """Refuse a key that does not name a file below the destination.

    Raises
    ------
    StoreError
        If the key is empty, absolute, or has a part ``..`` or a NUL.
    """
    path = PurePosixPath(key)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in key or key.endswith("/"):
        raise StoreError(f"cannot store {key!r} in {redact(destination)!r}: a key is a relative name without '..'")


def _storing(destination: str, ready: Ready) -> AbstractContextManager[None]:
    return storage_errors(StoreError, f"cannot store {_below(redact(destination), ready.name)!r}")


def _below(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"
