"""Dask's log beside our own clusters."""

from __future__ import annotations

import logging

import pytest

from pipeline.runner import quiet
from pipeline.runner.quiet import quiet_dask


def test_dask_stays_quiet_until_the_last_of_overlapping_clusters_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    # Clusters that other tests share may be open.
    monkeypatch.setattr(quiet, "_clusters", 0)
    monkeypatch.setattr(quiet, "_level_by_handler", {})
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO)
    logger = logging.getLogger("distributed")
    logger.addHandler(handler)
    try:
        first, second = quiet_dask(), quiet_dask()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert handler.level == logging.CRITICAL
        second.__exit__(None, None, None)
        assert handler.level == logging.INFO
    finally:
        logger.removeHandler(handler)
