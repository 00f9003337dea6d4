"""Which images need no work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.domain import Item, Outcome, SourceVersion
from pipeline.runner.earlier import StoredImage
from pipeline.runner.intake import judge

ITEM = Item("a", "/photos/a.jpg", fingerprint="file:3-1")
STORED = StoredImage("/photos/a.jpg", "file:3-1", "ab", "/out/a.webp", 4, 3, 3, 10, "f00d", "restore@1a2b")


def test_an_unchanged_source_needs_no_work_and_its_outcome_tells_of_the_image_that_is_there() -> None:
    outcome = judge(ITEM, STORED, 7.0)
    assert outcome == Outcome(
        ITEM,
        "skipped",
        output="/out/a.webp",
        width=4,
        height=3,
        channels=3,
        bytes_out=10,
        sha256="f00d",
        model="restore@1a2b",
        attempts=0,
        finished_at=7.0,
        source=SourceVersion("file:3-1", "ab"),
    )


@pytest.mark.parametrize(
    ("item", "version"),
    [
        (replace(ITEM, fingerprint="file:3-2"), SourceVersion("file:3-1", "ab")),
        # Of a URL, nothing is known until its server is asked.
        (replace(ITEM, fingerprint=""), SourceVersion("file:3-1", "ab")),
        # The same tag at another place may be of other bytes.
        (replace(ITEM, url="/elsewhere/a.jpg"), SourceVersion("", "ab")),
    ],
    ids=["changed", "unknown", "elsewhere"],
)
def test_where_the_source_may_have_changed_it_is_asked(item: Item, version: SourceVersion) -> None:
    assert judge(item, STORED, 7.0) == version


def test_what_is_not_there_and_what_names_no_image_is_worked_on() -> None:
    assert judge(ITEM, None, 7.0) is None
    assert judge(replace(ITEM, problem="line 3: no URL"), STORED, 7.0) is None
