"""The ledger, on the local disk and on a file system that is not."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.domain import Failure, Item, Outcome, Progress, SourceVersion
from pipeline.errors import LedgerError
from pipeline.runner.contents import Contents
from pipeline.runner.ledger import Ledger
from pipeline.runner.rows import SCHEMA
from pipeline.runner.seen import SeenKeys


@pytest.fixture(params=["local", "memory"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "local":
        yield Ledger(str(tmp_path / "out"), "20261123-1")
    else:
        yield Ledger("memory://bucket/out", "20261123-1")
        fsspec.filesystem("memory").store.clear()


def stored(key: str) -> Outcome:
    return Outcome(
        Item(key, f"https://example.org/{key}.jpg"),
        "stored",
        output=f"/out/{key}.jpg",
        width=4,
        height=3,
        channels=3,
        bytes_in=100,
        bytes_out=10,
        sha256="ab",
        source=SourceVersion("etag:1", key.encode().hex()),
        seconds={"fetch": 0.5, "resize": 0.25, "store": 0.125},
        finished_at=1_795_000_000.25,
    )


def failed(key: str) -> Outcome:
    failure = Failure("fetch", "MissingError", "cannot fetch it: 404")
    return Outcome(Item(key, f"https://example.org/{key}.jpg"), "failed", attempts=3, failure=failure)


def test_the_ledger_has_the_promised_columns() -> None:
    promised = (
        "key url status output width height bytes_in bytes_out sha256 attempts stage error message "
        "seconds_fetch seconds_resize seconds_enhance seconds_store recipe model"
    )
    assert set(promised.split(" ")) <= set(SCHEMA.names)


def test_what_was_appended_is_read_back_in_order(ledger: Ledger) -> None:
    ledger.append([stored("b"), failed("c")], "f00d")
    ledger.append([stored("a")], "f00d")
    rows = ledger.read().to_pylist()
    assert [row["key"] for row in rows] == ["b", "c", "a"]
    assert rows[0] == {
        "key": "b",
        "url": "https://example.org/b.jpg",
        "status": "stored",
        "output": "/out/b.jpg",
        "width": 4,
        "height": 3,
        "channels": 3,
        "bytes_in": 100,
        "bytes_out": 10,
        "sha256": "ab",
        "attempts": 1,
        "stage": "",
        "error": "",
        "message": "",
        "seconds_fetch": 0.5,
        "seconds_resize": 0.25,
        "seconds_enhance": 0.0,
        "seconds_store": 0.125,
        "recipe": "f00d",
        "model": "",
        "finished_at": pd.Timestamp(1_795_000_000.25, unit="s", tz="UTC"),
        "expected_hash": "",
        "robots": "",
        "fingerprint": "etag:1",
        "source_sha256": "62",
        "duplicate_of": "",
        "sealed_url": "",
    }
    assert (rows[1]["stage"], rows[1]["error"], rows[1]["attempts"]) == ("fetch", "MissingError", 3)


def test_a_ledger_that_is_not_there_is_empty(ledger: Ledger) -> None:
    assert len(ledger.read()) == 0
    assert ledger.failed_items() == []


def test_pandas_reads_the_folder_though_other_files_lie_there(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), "nightly")
    ledger.append([stored("a")], "f00d")
    ledger.save("job.json", "{}")
    assert list(pd.read_parquet(tmp_path / "_ledger" / "nightly")["key"]) == ["a"]


def test_of_an_item_that_was_done_twice_the_later_row_counts(ledger: Ledger) -> None:
    ledger.append([failed("a"), stored("b")], "f00d")
    ledger.append([stored("a")], "f00d")
    assert {row["key"]: row["status"] for row in ledger.read().to_pylist()} == {"a": "stored", "b": "stored"}


def test_what_is_forgotten_is_still_to_be_done(ledger: Ledger) -> None:
    ledger.append([failed("a"), stored("b")], "f00d")
    assert ledger.failed_items() == [Item("a", "https://example.org/a.jpg")]
    ledger.forget(["a"])
    with SeenKeys() as seen, Contents(is_any_left=True) as contents:
        tally = ledger.tally(Progress("job"), seen, contents)
        assert (tally.stored, tally.failed) == (1, 0)
        assert seen.add("a")
        assert not seen.add("b")


def test_the_tally_counts_each_item_once(ledger: Ledger) -> None:
    """Of one that was done twice, as it was the second time."""
    ledger.append([failed("a"), failed("b")], "f00d")
    ledger.append([stored("a"), stored("c")], "f00d")
    with SeenKeys() as seen, Contents(is_any_left=True) as contents:
        tally = ledger.tally(Progress("job", version=7), seen, contents)
    assert (tally.stored, tally.failed, tally.bytes_in, tally.bytes_out, tally.version) == (2, 1, 200, 20, 7)
    assert tally.failed_by_stage == {"fetch": 1}
    assert tally.seconds_by_stage["fetch"] == 1.0


def test_a_part_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in mid-write leaves no half part behind."""
    ledger = Ledger(str(tmp_path), "job")
    ledger.append([stored("a")], "f00d")

    def write_half(file: io.FileIO, data: bytes) -> None:
        file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.local_files._write_all", write_half)
        with pytest.raises(LedgerError, match="No space left"):
            ledger.append([stored("b")], "f00d")
    assert [row["key"] for row in ledger.read().to_pylist()] == ["a"]
    assert len(list((tmp_path / "_ledger" / "job").iterdir())) == 1


def test_what_a_killed_process_left_half_done_is_cleared(tmp_path: Path) -> None:
    """What is whole stays."""
    ledger = Ledger(str(tmp_path), "job")
    ledger.append([stored("a")], "f00d")
    kept = Path(ledger.save("collection-f00d.jsonl", "[]"))
    part = next(kept.parent.glob("*.parquet"))
    for name in (".0123456789abcdef.part", "_probe-0123"):
        kept.with_name(name).write_bytes(b"PAR1")
    ledger.clear_leftovers()
    assert set(kept.parent.iterdir()) == {kept, part}


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), "job")
    ledger.append([stored("a")], "f00d")
    part = next((tmp_path / "_ledger" / "job").glob("*.parquet"))
    part.write_bytes(b"not parquet")
    with pytest.raises(LedgerError, match=part.name):
        ledger.read()


def test_columns_of_the_manifest_are_columns_of_the_ledger(tmp_path: Path) -> None:
    """One that the ledger has already gets a name of its own."""
    ledger = Ledger(str(tmp_path), "nightly")
    extra = (("id", "007"), ("width", None), ("manifest_id", "x"))
    item = Item("a", "https://example.org/a.jpg", extra=extra)
    ledger.append([replace(stored("a"), item=item)], "f00d")
    ledger.append([replace(failed("b"), item=Item("b", "b.jpg", extra=(("id", None), *extra[1:])))], "f00d")
    table = pd.read_parquet(tmp_path / "_ledger" / "nightly")
    assert list(table["id"].fillna("none")) == ["007", "none"]
    assert (table["width"][0], table["manifest_width"].isna().all()) == (4, True)
    assert list(table["manifest_manifest_id"]) == ["x", "x"]


def test_a_failed_item_is_run_again_as_its_manifest_named_it(ledger: Ledger) -> None:
    promised = Item("a", "a.jpg", "sha256:ab", (("id", "7"), ("width", None), ("manifest_id", "x")))
    nameless = Item("line-000003", "", extra=promised.extra, problem="line 3 of 'list.csv': no URL or path in 'url'")
    failure = Failure("fetch", "RowError", nameless.problem)
    ledger.append([replace(failed("a"), item=promised), Outcome(nameless, "failed", failure=failure)], "f00d")
    assert ledger.failed_items() == [replace(promised, fingerprint="hash:sha256:ab"), nameless]


def test_a_ledger_of_an_earlier_release_is_read_with_newer_parts(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), "job")
    ledger.append([failed("a")], "f00d")
    (part,) = (tmp_path / "_ledger" / "job").glob("*.parquet")
    pq.write_table(pq.read_table(part).drop_columns(["expected_hash"]), part)
    ledger.append([stored("b")], "f00d")
    assert [row["expected_hash"] for row in ledger.read().to_pylist()] == [None, ""]
    assert ledger.failed_items() == [Item("a", "https://example.org/a.jpg")]
