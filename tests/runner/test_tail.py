"""What a view is told of a ledger that grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.domain import Failure, Item, Outcome
from pipeline.errors import remedy_for
from pipeline.runner.ledger import Ledger
from pipeline.runner.tail import Latest, LedgerTail


def stored(number: int) -> Outcome:
    return Outcome(Item(str(number), f"/in/{number}.jpg"), "stored", output=f"/out/{number}.jpg")


def failed(number: int, error: str) -> Outcome:
    url = f"https://example.org/{number}.jpg?signature=secret"
    return Outcome(Item(str(number), url), "failed", failure=Failure("fetch", error, f"message {number}"))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path), "nightly")


def test_before_the_first_part_there_is_nothing(ledger: Ledger) -> None:
    assert LedgerTail(ledger, 3).read() == Latest()


def test_the_latest_results_come_first_and_older_ones_go(ledger: Ledger) -> None:
    tail = LedgerTail(ledger, 3)
    ledger.append([stored(1), stored(2)], "f00d")
    assert tail.read().outputs == ("/out/2.jpg", "/out/1.jpg")
    ledger.append([stored(3), failed(4, "MissingError"), stored(5)], "f00d")
    assert tail.read().outputs == ("/out/5.jpg", "/out/3.jpg", "/out/2.jpg")


def test_failures_are_counted_over_all_looks_the_most_frequent_first(ledger: Ledger) -> None:
    tail = LedgerTail(ledger, 3)
    ledger.append([failed(1, "AccessError"), failed(2, "MissingError")], "f00d")
    tail.read()
    ledger.append([failed(3, "MissingError")], "f00d")
    missing, access = tail.read().failures
    assert (missing.error, missing.count, missing.message) == ("MissingError", 2, "message 2")
    assert (access.error, access.count) == ("AccessError", 1)
    assert missing.remedy == remedy_for("MissingError")


def test_an_example_has_no_signature(ledger: Ledger) -> None:
    ledger.append([failed(1, "AccessError")], "f00d")
    assert "secret" not in LedgerTail(ledger, 3).read().failures[0].example


def test_each_part_is_read_once(ledger: Ledger, tmp_path: Path) -> None:
    tail = LedgerTail(ledger, 3)
    ledger.append([stored(1)], "f00d")
    tail.read()
    for part in (tmp_path / "_ledger" / "nightly").glob("part-*"):
        part.write_bytes(b"spoilt")
    assert tail.read().outputs == ("/out/1.jpg",)
