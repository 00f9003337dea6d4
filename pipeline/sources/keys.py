"""Keys of Items: readable, stable, and safe as names of files on Linux, macOS and Windows. Pure.

A key made from a file's name stays as the name is, unless that could be taken for another; then, and always for a URL,
it ends in a digest of the whole name. So no two keys of a directory are equal, with or without regard to case, whatever
its files are called: those without a digest were compared with each other, and do not look like those with one; two
with a digest are of different names, whose digests differ (but for chance: 2**-64 a pair).
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Final
from urllib.parse import unquote

from pipeline.sources.suffixes import IMAGE_SUFFIXES, suffix_of

# The file systems' limit is 255; the output's suffix and a temporary file's additions must fit too.
MAX_COMPONENT_BYTES: Final = 150

# Of a key with folders, in all: object stores take 1,024 with the destination's own.
MAX_NAME_BYTES: Final = 500

_DIGEST_BYTES: Final = 8
_DIGEST_LENGTH: Final = 1 + 2 * _DIGEST_BYTES
_LOOKS_DIGESTED: Final = re.compile(r"-[0-9a-f]{16}\Z", re.IGNORECASE)
# The keys of a manifest's rows that name no image.
_LOOKS_NUMBERED: Final = re.compile(r"(line|row)-\d+\Z", re.IGNORECASE)
_FORBIDDEN: Final = re.compile(r'[<>:"/\\|?*]')
_QUERY_OR_FRAGMENT: Final = re.compile(r"[?#]")
# Windows' device names, which no suffix makes harmless, and the folders of the ledgers and of shards in the making.
_RESERVED: Final = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$", "CONOUT$", "_LEDGER", "_SHARDS"}
    | {f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"}
)


def name_files(names: Iterable[str]) -> dict[str, str]:
    """Return the keys of the files of one directory, by name.

    A key is the name without its suffix, cleaned. All of those that would be equal where case does not count
    (``cat.jpg`` and ``Cat.png``), and those that end like a digest already, get ``-`` and 16 hexadecimal digits of
    their name's BLAKE2b. The result does not depend on the names' order.

    Parameters
    ----------
    names : iterable of str
        Different names, without ``/``; those of the files that are taken, not of the others.

    Returns
    -------
    dict of str to str
        In the order of `names`; the values are unique without regard to case.
    """
    return _name_entries({name: posixpath.splitext(name)[0] for name in names}, _is_like_digested)


def plain_key(name: str) -> str:
    """Return the key that a file has by its name, if no other of its directory has it too: see `name_files`."""
    return clean_component(posixpath.splitext(name)[0])


def key_for_file(name: str, *, is_shared: bool) -> str:
    """Return the key of a file of a directory that is too large for `name_files`; the same that this gives.

    Parameters
    ----------
    name : str
    is_shared : bool
        Whether another file of the directory has the same `plain_key`, without regard to case.
    """
    key = plain_key(name)
    return _with_digest(posixpath.splitext(name)[0], name) if is_shared or _is_like_digested(key) else key


def name_folders(names: Iterable[str]) -> dict[str, str]:
    """Return the keys of the folders of one directory, by name.

    As `name_files`, but the whole name counts, and a folder called like an image (``cat.webp``) gets a digest too:
    the image ``cat.jpg`` beside it may be stored under that very name.
    """
    return _name_entries({name: name for name in names}, lambda key: _is_like_digested(key) or _is_like_image(key))


def key_for_url(url: str) -> str:
    """Return the key of an image that is given by its URL or path; equal for equal URLs, wherever they are listed.

    It is the last segment of the path without its suffix (or else the host), cleaned, then ``-`` and 16 hexadecimal
    digits of the whole URL's BLAKE2b. Query, fragment and credentials may be secret, and show only in the digest.
    """
    return _with_digest(_readable_part(url), url)


def key_for_name(name: str) -> str:
    """Return the key of an image that the user has named, in a manifest's column.

    It is the name, without the suffix of an image format. If that is not safe as a relative path, or could be taken
    for a key that was made otherwise, it is what `digested_key` makes of it.
    """
    stem = posixpath.splitext(name)[0] if _is_like_image(name) else name
    if "://" in name:
        # A query may be secret, and the digest shows none of it.
        return key_for_url(name)
    *folders, last = stem.split("/")
    is_plain = (
        all(clean_component(part) == part for part in (*folders, last))
        and not any(map(_is_like_image, folders))
        and not _is_like_digested(last)
        and not _LOOKS_NUMBERED.match(stem)
        and len(stem.encode()) <= MAX_NAME_BYTES
    )
    return stem if is_plain else digested_key(name)


def digested_key(name: str) -> str:
    """Return the key of a name that cannot be one itself: its last component, cleaned, and a digest of the whole."""
    last = posixpath.basename(name.rstrip("/"))
    return _with_digest(posixpath.splitext(last)[0] if _is_like_image(last) else last, name)


def clean_component(text: str, max_bytes: int = MAX_COMPONENT_BYTES) -> str:
    """Return `text` made safe as one component of a relative path; never empty.

    What does not print and what Windows forbids becomes ``_``; spaces and dots at either end go; reserved names
    get a ``_`` in front. The result is in NFC and has at most `max_bytes` bytes in UTF-8.
    """
    text = unicodedata.normalize("NFC", text)
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else "_" for letter in text)
    text = _FORBIDDEN.sub("_", text).strip(" .")
    # One byte is kept free for the underscore of a reserved name.
    text = text.encode()[: max_bytes - 1].decode(errors="ignore").rstrip(" .")
    is_reserved = not text or text.partition(".")[0].rstrip().upper() in _RESERVED
    return "_" + text if is_reserved else text


def _name_entries(stem_by_name: Mapping[str, str], is_ambiguous: Callable[[str], bool]) -> dict[str, str]:
    key_by_name = {name: clean_component(stem) for name, stem in stem_by_name.items()}
    folded_by_name = {name: fold_key(key) for name, key in key_by_name.items()}
    count_by_folded = Counter(folded_by_name.values())
    return {
        name: _with_digest(stem_by_name[name], name)
        if count_by_folded[folded_by_name[name]] > 1 or is_ambiguous(key)
        else key
        for name, key in key_by_name.items()
    }


def _is_like_digested(key: str) -> bool:
    return _LOOKS_DIGESTED.search(key) is not None


def _is_like_image(key: str) -> bool:
    return suffix_of(key) in IMAGE_SUFFIXES


def fold_key(key: str) -> str:
    """Return `key` such that two which any file system takes for one are equal; coarser than any one's own rule."""
    return unicodedata.normalize("NFC", key.upper().casefold())


def _with_digest(stem: str, name: str) -> str:
    # A file's name on Linux need not be UTF-8; Python then has surrogates in it.
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{clean_component(stem, MAX_COMPONENT_BYTES - _DIGEST_LENGTH)}-{digest}"


def _readable_part(url: str) -> str:
    _, is_url, rest = url.partition("://")
    if not is_url:
        return posixpath.splitext(posixpath.basename(url.rstrip("/")))[0]
    host, _, path = _QUERY_OR_FRAGMENT.split(rest, maxsplit=1)[0].partition("/")
    # What follows a semicolon is a parameter (;jsessionid=...), as secret as a query.
    segment = posixpath.basename(path.rstrip("/")).partition(";")[0]
    if segment:
        return posixpath.splitext(unquote(segment))[0]
    return host.rpartition("@")[2].partition(":")[0]
