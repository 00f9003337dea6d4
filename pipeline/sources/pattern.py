"""Glob patterns, matched a directory at a time so that only folders which can match are listed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob as the shell and `pathlib` have it: ``*``, ``?``, ``[a-z]``, ``[!a-z]``, and ``**`` for any folders.

    A name that begins with a dot matches only what begins with one too. A last ``**`` stands for ``**/*``.

    Attributes
    ----------
    parts : tuple of str
        The components; the last is for files.
    """

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, glob: str) -> Self:
        """Split a relative pattern at its slashes."""
        parts = tuple(part for part in glob.split("/") if part)
        return cls((*parts, "*") if parts[-1] == "**" else parts)

    @property
    def start(self) -> frozenset[int]:
        """Where matching stands in the topmost folder, as `enter` returns it for the others."""
        return self._reachable({0})

    def enter(self, positions: frozenset[int], folder: str) -> frozenset[int]:
        """Return where matching stands in a subfolder: which parts may come next; empty if nothing in it can match."""
        after = set()
        for position in positions:
            part = self.parts[position]
            if part == "**" and not folder.startswith("."):
                after.add(position)
            elif position + 1 < len(self.parts) and _matches(folder, part):
                after.add(position + 1)
        return self._reachable(after)

    def accepts(self, positions: frozenset[int], file: str) -> bool:
        """Tell whether a file of the folder matches the whole pattern."""
        return len(self.parts) - 1 in positions and _matches(file, self.parts[-1])

    def _reachable(self, positions: set[int]) -> frozenset[int]:
        # ** also stands for no folder at all.
        for position in range(len(self.parts) - 1):
            if position in positions and self.parts[position] == "**":
                positions.add(position + 1)
        return frozenset(positions)


def split_magic(path: str) -> tuple[str, str]:
    """Split a path before its first component with a ``*``, ``?`` or ``[``; the second part is empty if none has.

    >>> split_magic("/photos/2024-*/raw/*.jpg")
    ('/photos/', '2024-*/raw/*.jpg')
    """
    start = 0
    for part in path.split("/"):
        if any(sign in part for sign in "*?["):
            return path[:start], path[start:]
        start += len(part) + 1
    return path, ""


def _matches(name: str, part: str) -> bool:
    return fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
