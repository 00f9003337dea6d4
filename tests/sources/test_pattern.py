"""Rules of glob patterns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fsspec.utils import glob_translate
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.pattern import Pattern, split_magic

path_parts = st.sampled_from(["a", "b", "ab", "a.jpg", "b.png"])
pattern_parts = st.sampled_from(["a", "*", "**", "?", "a*", "[ab]", "[!a]", "*.jpg"])


def matches(glob: str, path: str) -> bool:
    pattern = Pattern.parse(glob)
    *folders, file = path.split("/")
    positions = pattern.start
    for folder in folders:
        positions = pattern.enter(positions, folder)
    return pattern.accepts(positions, file)


@given(st.lists(pattern_parts, min_size=1, max_size=5), st.lists(path_parts, min_size=1, max_size=5))
def test_matching_folder_by_folder_agrees_with_fsspec(glob: list[str], path: list[str]) -> None:
    expected = re.match(glob_translate("/".join(glob)), "/".join(path)) is not None
    assert matches("/".join(glob), "/".join(path)) == expected


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("**/*.jpg", ".hidden/a.jpg", False),
        ("**/*.jpg", "a/.hidden.jpg", False),
        (".hidden/*", ".hidden/a.jpg", True),
        ("**/.*", "a/.hidden.jpg", True),
        ("*.jpg", "a.JPG", False),
    ],
)
def test_a_leading_dot_is_matched_by_a_dot_only(glob: str, path: str, expected: bool) -> None:
    assert matches(glob, path) == expected


def test_folders_that_cannot_match_are_not_entered() -> None:
    pattern = Pattern.parse("2024-*/raw/*.jpg")
    assert not pattern.enter(pattern.start, "2023-12")
    assert not pattern.enter(pattern.enter(pattern.start, "2024-01"), "cooked")
    assert pattern.enter(pattern.enter(pattern.start, "2024-01"), "raw")


@pytest.mark.parametrize("path", ["photos/cat.jpg", "/a/b/**/*.jpg", "*.jpg", "a[1]/b?", "/*"])
def test_split_magic_loses_nothing(path: str) -> None:
    fixed, glob = split_magic(path)
    assert fixed + glob == path
    assert not set(fixed) & set("*?[")
    assert not fixed or not glob or Path(fixed + "x").name == "x"
