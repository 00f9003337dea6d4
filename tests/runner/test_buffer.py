"""Outcomes on their way to a ledger that cannot be read or written just now."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.errors import LedgerError, PartsRemovedError
from pipeline.runner.buffer import PATIENCE_S, OutcomeBuffer
from pipeline.runner.ledger import Ledger


def test_outcomes_wait_while_the_ledger_cannot_be_written_but_not_for_ever(tmp_path: Path) -> None:
    item = pipeline.Item("a", "https://example.org/a.jpg")
    ledger = Ledger(str(tmp_path / "out"), "job")
    buffer = OutcomeBuffer(ledger, "f00d")
    buffer.add([pipeline.Outcome(item, "stored")])
    (tmp_path / "out").write_text("a file where the folder is to be")
    buffer.flush(now_s=100.0)
    buffer.flush(now_s=100.0 + PATIENCE_S)
    with pytest.raises(LedgerError):
        buffer.flush(now_s=101.0 + PATIENCE_S)
    (tmp_path / "out").unlink()
    buffer.flush(now_s=102.0 + PATIENCE_S, is_last=True)
    assert [row["key"] for row in ledger.read().to_pylist()] == ["a"]


def key_list(ledger: Ledger) -> list[str]:
    return [row["key"] for row in ledger.read().to_pylist()]


def test_a_look_at_the_ledger_that_fails_once_loses_no_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer (ESTALE, EIO) is no disk from which the ledger was removed."""
    ledger = Ledger(str(tmp_path), "job")
    buffer = OutcomeBuffer(ledger, "f00d")
    buffer.add([pipeline.Outcome(pipeline.Item("a", "a.jpg"), "stored")])
    buffer.flush(now_s=100.0)
    buffer.add([pipeline.Outcome(pipeline.Item("b", "b.jpg"), "stored")])
    stat, failures = os.stat, [OSError(errno.ESTALE, os.strerror(errno.ESTALE))]

    def fail_once(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(path).endswith(".parquet") and failures:
            raise failures.pop()
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", fail_once)
    buffer.flush(now_s=103.0)
    assert not failures
    assert key_list(ledger) == ["a"]
    buffer.add([pipeline.Outcome(pipeline.Item("c", "c.jpg"), "stored")])
    buffer.flush(now_s=106.0, is_last=True)
    assert key_list(ledger) == ["a", "b", "c"]


def test_a_ledger_that_cannot_even_be_listed_is_waited_for(tmp_path: Path) -> None:
    """For a minute; what is to go into it is kept, also when that is over."""
    ledger = Ledger(str(tmp_path), "job")
    buffer = OutcomeBuffer(ledger, "f00d")
    buffer.add([pipeline.Outcome(pipeline.Item("a", "a.jpg"), "stored")])
    buffer.flush(now_s=100.0)
    buffer.add([pipeline.Outcome(pipeline.Item("b", "b.jpg"), "stored")])
    folder = tmp_path / "_ledger"
    folder.rename(tmp_path / "kept")
    folder.symlink_to(folder)
    buffer.flush(now_s=103.0)
    buffer.flush(now_s=103.0 + PATIENCE_S)
    with pytest.raises(LedgerError, match="cannot look at"):
        buffer.flush(now_s=104.0 + PATIENCE_S)
    folder.unlink()
    (tmp_path / "kept").rename(folder)
    buffer.flush(now_s=105.0 + PATIENCE_S, is_last=True)
    assert key_list(ledger) == ["a", "b"]


def test_outcomes_of_images_that_were_removed_with_the_ledger_are_not_kept(tmp_path: Path) -> None:
    """They were in the same folder: whoever resumes the job makes them again."""
    ledger = Ledger(str(tmp_path), "job")
    buffer = OutcomeBuffer(ledger, "f00d")
    buffer.add([pipeline.Outcome(pipeline.Item("a", "a.jpg"), "stored")])
    buffer.flush(now_s=100.0)
    buffer.add([pipeline.Outcome(pipeline.Item("b", "b.jpg"), "stored")])
    shutil.rmtree(tmp_path / "_ledger")
    with pytest.raises(PartsRemovedError, match="1 of 1 parts of the ledger"):
        buffer.flush(now_s=103.0)
    buffer.flush(now_s=106.0)
    assert key_list(ledger) == []
