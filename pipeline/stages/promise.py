"""Whether the bytes of an image are those that its manifest promises."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from pipeline.domain import show_value
from pipeline.errors import HashError

_LENGTH_BY_ALGORITHM: Final = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
_ALGORITHM_BY_LENGTH: Final = {length: algorithm for algorithm, length in _LENGTH_BY_ALGORITHM.items()}
_HEXADECIMAL: Final = re.compile(r"[0-9a-f]+")


def parse_hash(text: str) -> tuple[str, str]:
    """Return the algorithm and the digits of a hash such as ``sha256:9f86…``, or of digits alone, told by their number.

    Raises
    ------
    HashError
        If it is none.
    """
    prefix, colon, rest = text.strip().lower().rpartition(":")
    digits = rest.strip()
    algorithm = prefix.strip() if colon else _ALGORITHM_BY_LENGTH.get(len(digits), "")
    if _LENGTH_BY_ALGORITHM.get(algorithm) != len(digits) or not _HEXADECIMAL.fullmatch(digits):
        allowed = ", ".join(f"{name}: and {length}" for name, length in _LENGTH_BY_ALGORITHM.items())
        raise HashError(f"its manifest's hash is {show_value(text)}; allowed are {allowed} hexadecimal digits")
    return algorithm, digits


def require_hash(data: bytes, algorithm: str, digits: str) -> None:
    """Raise HashError unless the bytes have the hash."""
    found = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    if not hmac.compare_digest(found, digits):
        raise HashError(f"its {algorithm} is {found}, but its manifest promises {digits}; {len(data)} bytes came")
