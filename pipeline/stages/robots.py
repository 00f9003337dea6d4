"""Who we say that we are, and what a server forbids those that it calls robots: the header ``X-Robots-Tag``.

References
----------
Google, "Robots meta tag, data-nosnippet, and X-Robots-Tag specifications"; the directives against training, ``noai``
and ``noimageai``, are DeviantArt's (2022). img2dataset heeds the same but for ``none``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

from pipeline.version import __version__

NAME: Final = "image-pipeline"

# ``none`` is short for noindex, nofollow. To follow links, to show a snippet and the like is nothing that we do.
FORBIDDING: Final = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})

# Directives with a value; any other word before a colon is the name of the robot that is meant.
_WITH_VALUE: Final = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_ROBOT: Final = re.compile(r"\s*([\w.*-]+)\s*:(.*)", re.DOTALL)
_PRODUCT: Final = re.compile(r"([\w.-]+)(?:/\S*)?")
_COMMENT: Final = re.compile(r"\([^()]*\)")
# What a ledger keeps of a header, which is a stranger's to fill.
_KEPT_LETTERS: Final = 500


class RobotsTagError(Exception):
    """The server forbids what we would do with the image.

    Attributes
    ----------
    directive : str
    tag : str
        As the ledger keeps it.
    """

    def __init__(self, directive: str, tag: str) -> None:
        super().__init__(directive, tag)
        self.directive = directive
        self.tag = tag


def full_user_agent(own: str | None) -> str:
    """Return the header ``User-Agent``: what the user says of himself, if anything, before our own name."""
    ours = f"{NAME}/{__version__}"
    return f"{own} {ours}" if own else ours


def names_in(user_agent: str) -> frozenset[str]:
    """Return the names by which a server may mean us, in lower case: the products of a ``User-Agent``.

    Examples
    --------
    >>> sorted(names_in("Lab-Crawler/2 (+https://lab.example) image-pipeline/0.1.0"))
    ['image-pipeline', 'lab-crawler']
    """
    words = _COMMENT.sub(" ", user_agent).lower().split()
    return frozenset(match[1] for word in words if (match := _PRODUCT.fullmatch(word)))


def join_tags(values: Sequence[str]) -> str:
    """Return several headers ``X-Robots-Tag`` as the ledger keeps them, the first 500 letters."""
    joined = ", ".join(value.strip() for value in values)[:_KEPT_LETTERS]
    # A header may have any bytes; the ledger's texts are UTF-8.
    return joined.encode("ascii", "backslashreplace").decode()


def find_forbidding(values: Sequence[str], names: Collection[str]) -> str | None:
    """Return the first directive that forbids us to use an image; None if nothing does.

    Parameters
    ----------
    values : sequence of str
        The headers ``X-Robots-Tag``, each with directives between commas. Those after ``NAME:`` are only for that
        robot, up to the next such name or the end of the header.
    names : collection of str
        In lower case, by which we are meant; ``*`` means all.
    """
    for value in values:
        is_meant = True
        for part in value.lower().split(","):
            directive = part
            named = _ROBOT.fullmatch(part)
            if named and named[1] not in _WITH_VALUE:
                is_meant = named[1] == "*" or named[1] in names
                directive = named[2]
            if is_meant and directive.strip() in FORBIDDING:
                return directive.strip()
    return None
