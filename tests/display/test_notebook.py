"""Jobs in a real Jupyter kernel: what its cells show, with somebody in front of it and without."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from pipeline.display.widget import PAINT_INTERVAL_S

WIDGET = "application/vnd.jupyter.widget-view+json"
PATIENCE_S = 120

SETUP = """
import pipeline
from pipeline import Recipe
small = Recipe(max_width=100, max_height=100, enhance=None)
"""


@dataclass
class Cell:
    """What one run of a cell brought.

    Attributes
    ----------
    shown : list of mapping
        What it displayed, by MIME type, later changes of the same display included.
    printed : str
    sent : Counter of str
        Messages to widgets, by the widget's id.
    seconds : float
        Until the kernel was idle again.
    """

    shown: list[dict[str, Any]] = field(default_factory=list)
    printed: str = ""
    sent: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    _place_by_id: dict[str, int] = field(default_factory=dict)

    def take(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "error":
            raise AssertionError("\n".join(content["traceback"]))
        if kind == "stream":
            self.printed += content["text"]
        elif kind == "comm_msg":
            self.sent[content["comm_id"]] += 1
        elif kind in {"display_data", "execute_result"}:
            if display_id := content.get("transient", {}).get("display_id"):
                self._place_by_id[display_id] = len(self.shown)
            self.shown.append(content["data"])
        elif kind == "update_display_data":
            place = self._place_by_id.get(content["transient"]["display_id"])
            if place is not None:
                self.shown[place] = content["data"]


class Kernel:
    """A kernel, and a frontend that says whether somebody is there to answer."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PIPELINE_DATA_DIR": str(folder / "data"), "IPYTHONDIR": str(folder / "ipython")}
        environment.pop("REDIS_URL", None)
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(folder), env=environment)

    def run(self, code: str, *, is_attended: bool = True, until: str = "") -> Cell:
        """Run a cell, and go on listening until something displayed has the text `until` in it."""
        started_at_s = time.monotonic()
        cell, is_idle = Cell(), False
        request = self.client.execute(code, allow_stdin=is_attended)
        while not (is_idle and (not until or any(until in bundle.get("text/plain", "") for bundle in cell.shown))):
            message = self.client.get_iopub_msg(timeout=PATIENCE_S)
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle" and is_of(message, request):
                is_idle, cell.seconds = True, time.monotonic() - started_at_s
            cell.take(kind, content)
        return cell


def is_of(message: dict[str, Any], request: str) -> bool:
    return bool(message["parent_header"].get("msg_id") == request)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    kernel = Kernel(tmp_path_factory.mktemp("kernel"))
    try:
        kernel.run(SETUP)
        yield kernel
    finally:
        kernel.client.stop_channels()
        kernel.manager.shutdown_kernel()


def test_run_shows_a_widget_and_a_snapshot_that_stays(kernel: Kernel, photographs: Path, tmp_path: Path) -> None:
    cell = kernel.run(f"job = pipeline.run({str(photographs)!r}, {str(tmp_path)!r}, small)", until="completed")
    snapshot, widget = cell.shown
    assert WIDGET in widget
    assert WIDGET not in snapshot
    assert "40 / 40" in snapshot["text/plain"]
    assert snapshot["text/html"].count("data:image/jpeg") == 8
    assert "<script" not in snapshot["text/html"]
    assert cell.printed == ""


def test_a_widget_is_told_a_few_times_a_second_at_most(kernel: Kernel, photographs: Path, tmp_path: Path) -> None:
    started_at_s = time.monotonic()
    cell = kernel.run(f"job = pipeline.run({str(photographs)!r}, {str(tmp_path)!r}, small)", until="completed")
    # One at the start and one at the end, whatever the pace.
    most = (time.monotonic() - started_at_s) / PAINT_INTERVAL_S + 2
    assert cell.sent
    assert max(cell.sent.values()) <= most


def test_the_last_expression_shows_the_job_once(kernel: Kernel, photographs: Path, tmp_path: Path) -> None:
    cell = kernel.run(f"pipeline.run({str(photographs)!r}, {str(tmp_path)!r}, small)", until="completed")
    assert sum(WIDGET in bundle for bundle in cell.shown) == 1


def test_a_cell_that_is_run_again_shows_the_run_that_is_under_way(
    kernel: Kernel, photographs: Path, tmp_path: Path
) -> None:
    code = f"job = pipeline.run({str(photographs)!r}, {str(tmp_path)!r}, small); print(job.id)"
    first, second = kernel.run(code), kernel.run(code, until="completed")
    assert first.printed == second.printed
    assert sum(WIDGET in bundle for bundle in second.shown) == 1
    third = kernel.run(code, until="completed")
    assert third.printed != first.printed


def test_the_widget_lives_while_the_kernel_is_busy(kernel: Kernel, photographs: Path, tmp_path: Path) -> None:
    cell = kernel.run(f"job = pipeline.run({str(photographs)!r}, {str(tmp_path)!r}, small); job.wait(); print('end')")
    assert cell.printed == "end\n"
    assert len(cell.sent) > 3


def test_another_cell_shows_the_job_again_by_its_id(kernel: Kernel, photographs: Path, tmp_path: Path) -> None:
    kernel.run(f"job = pipeline.run({str(photographs)!r}, {str(tmp_path)!r}, small)", until="completed")
    cell = kernel.run("again = pipeline.attach(job.id)", until="completed")
    assert sum(WIDGET in bundle for bundle in cell.shown) == 1
    assert "40 / 40" in cell.shown[0]["text/plain"]


def test_without_anybody_in_front_run_shows_bars_to_the_end(kernel: Kernel, photographs: Path, tmp_path: Path) -> None:
    """So in papermill and nbconvert, which say that nobody answers."""
    cell = kernel.run(
        f"job = pipeline.run({str(photographs)!r}, {str(tmp_path)!r}, small); print(job.progress.status)",
        is_attended=False,
    )
    assert cell.printed == "completed\n"
    (snapshot,) = cell.shown
    assert WIDGET not in snapshot
    assert "40 / 40" in snapshot["text/plain"]


def test_jobs_are_a_table_and_a_preview_has_a_slider(kernel: Kernel, photographs: Path, tmp_path: Path) -> None:
    kernel.run(f"job = pipeline.run({str(photographs)!r}, {str(tmp_path)!r}, small)", until="completed")
    (jobs,) = kernel.run("pipeline.jobs()").shown
    assert "<table" in jobs["text/html"]
    assert "completed: 40 of 40" in jobs["text/plain"]
    (preview,) = kernel.run(f"pipeline.preview({str(photographs / 'spring' / '00.jpg')!r}, small)").shown
    assert 'type="range"' in preview["text/html"]
    assert preview["text/html"].count("data:image/jpeg") == 2
    (gallery,) = kernel.run("job.gallery(12)").shown
    assert gallery["text/html"].count("data:image/jpeg") == 12
    (report,) = kernel.run("job.report()").shown
    assert "<iframe" in report["text/html"]


def test_without_anybody_in_front_the_last_expression_shows_the_job_once(
    kernel: Kernel, photographs: Path, tmp_path: Path
) -> None:
    cell = kernel.run(f"pipeline.run({str(photographs)!r}, {str(tmp_path)!r}, small)", is_attended=False)
    assert len(cell.shown) == 1
