"""Dask's log beside our own clusters, and what their workers say."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

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


SPEAKING = """
import os, sys
from pipeline.runner.cluster import open_client

def speak():
    os.write(2, b"a codec's line\\n")
    print("a traceback's line", file=sys.stderr)

if __name__ == "__main__":
    with open_client(None, workers=1) as client:
        client.run(speak)
"""


def test_of_local_workers_a_terminal_shows_what_python_says_but_not_what_codecs_say(tmp_path: Path) -> None:
    script = tmp_path / "speaking.py"
    script.write_text(SPEAKING)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == "a traceback's line\n"
