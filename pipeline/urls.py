"""URLs as text: their scheme, and how they are shown to people. No I/O."""

from __future__ import annotations

import re
from typing import Final

# File systems without folders, on whose servers the user's configuration decides.
OBJECT_STORES: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf", "memory"})

# Of a chain such as simplecache::s3://… the scheme is that of its first link, which decides what becomes of the rest.
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?:://|::.*://)")
_USER_INFO: Final = re.compile(r"://[^/?#]*@")
_URL_IN_TEXT: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")


def scheme_of(url: str) -> str:
    """Return a URL's scheme in lower case; ``file`` for what has none and so is a path."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else "file"


def redact(url: str) -> str:
    """Return `url` as it may be shown: without user and password, and with ``?…`` for its query.

    The query of a signed URL lets whoever reads it read the image. A path without a scheme stays as it is.
    """
    if scheme_of(url) == "file":
        return url
    shown, question_mark, _ = url.partition("?")
    shown = _USER_INFO.sub("://", shown)
    return f"{shown}?…" if question_mark else shown.partition("#")[0]


def redact_within(text: str) -> str:
    """Return a text, such as an error's, with every URL in it as it may be shown."""
    return _URL_IN_TEXT.sub(lambda url: redact(url[0]), text)
