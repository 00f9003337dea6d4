"""What is promised about the package as a whole: its surface, its dependencies, its errors."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pipeline
from pipeline import errors

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ERROR_TYPES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.PipelineError)
]


def test_the_conda_environment_has_the_dependencies_of_the_package() -> None:
    text = (ROOT / "environment.yml").read_text("utf-8")
    listed = re.findall(r"^      - (.+)$", text, re.MULTILINE)
    assert listed == PROJECT["project"]["dependencies"]
    assert f"python{PROJECT['project']['requires-python']}" in text


def test_ci_pins_every_direct_dependency_by_hash() -> None:
    """But for torch: which build fits is the machine's affair."""
    locked = (ROOT / ".ci" / "requirements.txt").read_text("utf-8")
    pinned = dict(re.findall(r"^([a-z0-9-]+)==\S+.*\\\n    (--hash=sha256:)", locked, re.MULTILINE))
    extras = PROJECT["project"]["optional-dependencies"]
    direct = [*PROJECT["project"]["dependencies"], *extras["train"], *extras["test"], *extras["dev"]]
    names = {re.match(r"[A-Za-z0-9-]+", each)[0].lower() for each in direct}  # type: ignore[index]
    assert names - pinned.keys() == {"torch", "image-pipeline"}


def test_the_version_is_said_once_more_only() -> None:
    assert PROJECT["project"]["version"] == pipeline.__version__


@pytest.mark.parametrize("name", pipeline.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(pipeline, name)
    if name != "__version__":
        assert inspect.getdoc(value)


def test_every_name_of_the_interface_is_public() -> None:
    named = {"run", "attach", "jobs", "plan", "preview", "models", "Recipe", "Progress"}
    assert named <= set(pipeline.__all__)
    assert {"wait", "progress", "outcomes", "failures", "retry_failed", "cancel", "id"} <= set(dir(pipeline.JobHandle))


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import pipeline, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "keras",
        "dask",
        "distributed",
        "pandas",
        "numpy",
        "PIL",
        "bokeh",
        "tornado",
        "IPython",
        "redis",
        "aiohttp",
    }
    assert heavy.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("error_type", ERROR_TYPES, ids=lambda error_type: error_type.__name__)
def test_every_error_pickles(error_type: type[errors.PipelineError]) -> None:
    """They cross processes."""
    error = error_type("cannot decode 's3://b/cat.jpg': 900 megapixels, limit 100")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is error_type
    assert copy.args == error.args


@pytest.mark.parametrize("error_type", ERROR_TYPES, ids=lambda error_type: error_type.__name__)
def test_every_error_is_in_the_drawn_tree(error_type: type[errors.PipelineError]) -> None:
    tree = inspect.getdoc(errors) or ""
    line = next(line for line in tree.splitlines() if re.search(rf"\b{error_type.__name__}\b", line))
    depth = (len(line) - len(line.lstrip(" │├└─"))) // 4
    assert depth == len(error_type.__mro__) - len(errors.PipelineError.__mro__) + 1 - (ValueError in error_type.__mro__)


@pytest.mark.parametrize(
    "error_type",
    [error_type for error_type in ERROR_TYPES if issubclass(error_type, errors.StageError)][1:],
    ids=lambda error_type: error_type.__name__,
)
def test_every_error_of_an_image_has_a_remedy(error_type: type[errors.StageError]) -> None:
    assert errors.remedy_for(error_type.__name__)


def test_an_unknown_error_has_no_remedy() -> None:
    assert errors.remedy_for("KeyError") == ""


def test_every_module_imports() -> None:
    """No module hangs on another one having been imported before."""
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not name.endswith("__main__"):
            importlib.import_module(name)
