"""The notebooks, executed: as a person runs them in JupyterLab, and as papermill does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Each takes half a minute of two cores that have nothing else to do.
CELL_TIMEOUT_S = 480
pytestmark = pytest.mark.timeout(500)

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that kernels start in; all that they and Jupyter write is below it."""
    for name in list(os.environ):
        if name.startswith(("PIPELINE_", "REDIS_", "KERAS_", "JUPYTER", "IPYTHON", "AWS_")):
            monkeypatch.delenv(name)
    for kind in ("CONFIG", "DATA", "RUNTIME"):
        monkeypatch.setenv(f"JUPYTER_{kind}_DIR", str(tmp_path / "jupyter" / kind.lower()))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PIPELINE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "notebooks"
    folder.mkdir()
    return folder


class Executed:
    """A notebook that was executed to its end.

    Parameters
    ----------
    number : int
        Which its file's name begins with.
    folder : Path
        Where its kernel starts.
    is_attended : bool
        Whether somebody looks on, as in JupyterLab: `pipeline.run` then returns at once.
    """

    def __init__(self, number: int, folder: Path, *, is_attended: bool = False) -> None:
        self.notebook = nbformat.read(find(number), as_version=4)
        client = NotebookClient(
            self.notebook,
            timeout=CELL_TIMEOUT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            on_notebook_start=lambda notebook: setattr(client.kc, "allow_stdin", is_attended),
        )
        client.execute()
        assert [output for output in self._outputs() if output.get("name") == "stderr"] == []

    def of(self, source: str) -> Iterator[NotebookNode]:
        """Yield the outputs of the first cell whose source has some text in it."""
        return iter(next(cell for cell in self.code if source in cell.source).outputs)

    def html(self, source: str) -> str:
        """Return what that cell shows as HTML."""
        return "".join(output.data.get("text/html", "") for output in self.of(source) if "data" in output)

    def text(self, source: str) -> str:
        """Return what that cell prints, or its value as text."""
        return "".join(
            output.text if output.output_type == "stream" else output.data.get("text/plain", "")
            for output in self.of(source)
        )

    @property
    def code(self) -> list[NotebookNode]:
        """The code cells."""
        return [cell for cell in self.notebook.cells if cell.cell_type == "code"]

    def _outputs(self) -> list[NotebookNode]:
        return [output for cell in self.code for output in cell.outputs]


def find(number: int) -> Path:
    (path,) = [path for path in NOTEBOOKS if path.name.startswith(f"{number}-")]
    return path


def test_there_are_six_and_both_readmes_lead_to_them() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number}-" for number in range(1, 7)]
    for readme, folder in ((ROOT / "README.md", "notebooks/"), (ROOT / "notebooks" / "README.md", "")):
        links = re.findall(r"\]\(([^)]+\.ipynb)\)", readme.read_text("utf-8"))
        assert sorted({*links}) == [f"{folder}{path.name}" for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_in_git_a_notebook_is_valid_has_a_title_and_no_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert re.match(r"# \S", notebook.cells[0].source)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_links_to_is_there(path: Path) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    places = [place for place in re.findall(r"\]\(([^)]+)\)", text) if "://" not in place]
    assert places
    assert [place for place in places if not (path.parent / place).exists()] == []


@pytest.mark.slow
def test_the_first_run_as_in_jupyterlab(workplace: Path) -> None:
    executed = Executed(1, workplace, is_attended=True)
    shown = [[*output.data] for output in executed.of("job = pipeline.run") if "data" in output]
    assert [WIDGET in types for types in shown] == [False, True]
    assert "fetch" in executed.html("job = pipeline.run")
    assert "completed: 35 stored, 3 failed" in executed.text("{progress.seconds:.0f}")
    assert executed.html("job.gallery").count("<img") == 12
    assert "TruncatedError" in executed.text("job.failures()")
    assert "completed: 36 stored, 2 failed" in executed.text("retry_failed")
    stopped = re.search(r"cancelled: (\d+) of 38 done", executed.text("large.cancel()"))
    assert stopped
    assert int(stopped[1]) < 38
    assert "completed: 38 of 38 done" in executed.text("large.resume()")
    assert "completed" in executed.text("subprocess.run(command")
    assert "<svg" in (workplace / "demo" / "1" / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_choosing_a_recipe(workplace: Path) -> None:
    executed = Executed(2, workplace)
    assert "pipeline-compare" in executed.html('format="webp", quality=80))')
    assert "cover    300 × 300" in executed.text("by_fit")
    assert executed.text("formats.round").count("webp") == 3
    assert "24 images" not in executed.html("pipeline.plan")
    assert re.search(r"pipeline-plan.*>enhance<", executed.html("plan = pipeline.plan"), re.DOTALL)
    assert not any((workplace / "demo").rglob("*.parquet"))


@pytest.mark.slow
def test_large_collections(workplace: Path) -> None:
    executed = Executed(3, workplace)
    bars = executed.html("job = pipeline.run")
    assert "pipeline-job" in bars
    assert "s3://photographs/2026" in bars
    failed = executed.text("job.failures()")
    assert "completed: 29 stored, 1 failed" in failed
    assert "HashError" in failed
    assert "P-00000.webp" in executed.text("ledger.sort_values")
    assert "completed: 30 done" in executed.text("again.wait()")
    assert "written again: False" in executed.text("again.wait()")


@pytest.mark.slow
def test_the_dask_dashboard(workplace: Path) -> None:
    executed = Executed(4, workplace)
    assert "2 workers at tcp://127.0.0.1:" in executed.text("client.wait_for_workers")
    assert "completed: 21 stored" in executed.text("job.wait()")
    assert "the page answers: 200" in executed.text("/metrics")
    assert 'task_prefix_name="enhance"' in executed.text("/metrics")
    assert "ended with codes 0 and 0" in executed.text("client.shutdown()")


@pytest.mark.slow
def test_a_scheduled_batch_run_twice_by_papermill_does_nothing_twice(workplace: Path) -> None:
    first = papermill(workplace, date="2026-11-25")
    assert first.returncode == 0, first.stderr
    outputs = {path: path.stat().st_mtime_ns for path in (workplace / "demo" / "5" / "nightly").glob("*.webp")}
    ledger = workplace / "demo" / "5" / "nightly" / "_ledger" / "nightly-2026-11-25"
    rows = pd.read_parquet(ledger)
    assert len(outputs) == (rows["status"] == "stored").sum() == 21

    again = papermill(workplace, date="2026-11-25")

    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in outputs} == outputs
    pd.testing.assert_frame_equal(pd.read_parquet(ledger), rows)
    record = nbformat.read(workplace / "executed.ipynb", as_version=4)
    shown = [output for cell in record.cells for output in cell.get("outputs", [])]
    assert [output for output in shown if output.get("name") == "stderr"] == []
    assert any("pipeline-job" in output.get("data", {}).get("text/html", "") for output in shown)
    assert any("nightly-2026-11-25: 21 stored, 1 failed" in output.get("text", "") for output in shown)
    assert any(output.get("text", "").startswith("exit code 1\n{") for output in shown)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"most_failed": "0"}, "1 of 22 images failed; see demo/5/report.html"),
        ({"collection": "nowhere"}, "no such file or folder"),
    ],
)
def test_papermill_says_so_when_the_night_was_no_success(
    workplace: Path, parameters: dict[str, str], reason: str
) -> None:
    done = papermill(workplace, **parameters)
    assert done.returncode == 1
    assert reason in done.stderr


@pytest.mark.slow
def test_training_a_model(workplace: Path) -> None:
    pytest.importorskip("skimage")
    if not any(map(find_spec, ("torch", "jax", "tensorflow"))):
        pytest.skip("nothing that trains is installed: pip install 'image-pipeline[train]'")
    executed = Executed(6, workplace)
    gain_db = re.search(r"best epoch: (\+\d+\.\d+) dB", executed.text("train("))
    assert gain_db
    assert float(gain_db[1]) > 0.5
    assert "clean" in executed.html("psnr.style")
    assert "image/png" in next(executed.of("draw_crops")).data
    assert "mine" in executed.html("pipeline.models()")
    assert "pipeline-compare" in executed.html('enhance="mine"')


def papermill(folder: Path, **parameters: Any) -> subprocess.CompletedProcess[str]:
    given = [text for name, value in parameters.items() for text in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--cwd", str(folder)]
    return subprocess.run(
        [*command, str(find(5)), str(folder / "executed.ipynb"), *given], capture_output=True, text=True, check=False
    )
