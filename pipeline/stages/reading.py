"""What is read of a source, and how much of it."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.errors import TooLargeError


class Read(NamedTuple):
    """What one attempt has read.

    Attributes
    ----------
    data : bytes or None
        None if the source has the bytes that it was known to have.
    fingerprint : str
        See `pipeline.fingerprints`.
    robots : str
        What the server's header ``X-Robots-Tag`` said; empty without one.
    """

    data: bytes | None
    fingerprint: str
    robots: str = ""


def require_size(n_bytes: int, max_bytes: int) -> None:
    """Raise TooLargeError if there are more bytes than allowed."""
    if n_bytes > max_bytes:
        raise TooLargeError(f"more than the limit of {max_bytes} bytes")
