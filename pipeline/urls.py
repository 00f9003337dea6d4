"""URLs as text: their scheme, and how they are shown to people. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# File systems without folders, on whose servers the user's configuration decides.
OBJECT_STORES: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf", "memory"})

# Of a chain such as simplecache::s3://… the scheme is that of its first link, which decides what becomes of the rest.
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?:://|::.*://)")
_USER_INFO: Final = re.compile(r"://[^/?#]*@")
_SECRET_PART: Final = re.compile(r"[?#]")
# Up to white space, since a secret may have quotes in it. What closes the quote in front of a URL is not part of it.
_URL_IN_TEXT: Final = re.compile(r"(['\"]?)([A-Za-z][A-Za-z0-9+.-]*://\S+)")
_CLOSING: Final = re.compile(r"['\")\]}>:;,.]*")


def scheme_of(url: str) -> str:
    """Return a URL's scheme in lower case; ``file`` for what has none and so is a path."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else "file"


def is_within(url: str, prefixes: Iterable[str]) -> bool:
    """Whether a place lies below one of some others, whatever way of writing it another program understands.

    A path that climbs lies nowhere; neither does the URL of a store that is chained or quoted.
    """
    scheme = scheme_of(url)
    if scheme in {"http", "https"}:
        return any(f"{scheme}{url[len(scheme) :]}".startswith(prefix) for prefix in prefixes)
    is_plain = url.isprintable() and "\\" not in url and ".." not in url.split("/")
    if scheme != "file":
        is_plain = is_plain and not re.search(r"::|[%?#]|[^:/]//", url)
    folders = (prefix if prefix.endswith("/") else f"{prefix}/" for prefix in prefixes)
    return is_plain and any(url.startswith(folder) or f"{url}/" == folder for folder in folders)


def may_be_local(url: str) -> bool:
    """Whether a URL may name a file of the machine that reads it: a path, or a chain that may end in one."""
    scheme = scheme_of(url)
    return bool(url) and scheme not in {"http", "https"} and (scheme not in OBJECT_STORES or "::" in url)


def redact(url: str) -> str:
    """Return `url` as it may be shown: without user and password, and with ``?…`` for its query.

    The query of a signed URL lets whoever reads it read the image. A path without a scheme stays as it is.
    """
    if scheme_of(url) == "file":
        return url
    # Whichever is first: what follows it is all secret.
    secret = _SECRET_PART.search(url)
    shown = _USER_INFO.sub("://", url[: secret.start()] if secret else url)
    return f"{shown}?…" if secret and secret[0] == "?" else shown


def redact_within(text: str) -> str:
    """Return a text, such as an error's, with every URL in it as it may be shown."""
    return _URL_IN_TEXT.sub(_redact_found, text)


def _redact_found(found: re.Match[str]) -> str:
    quote, url = found[1], found[2]
    end = url.rfind(quote) if quote else -1
    if end < 0 or not _CLOSING.fullmatch(url, end):
        return quote + redact(url)
    return quote + redact(url[:end]) + url[end:]
