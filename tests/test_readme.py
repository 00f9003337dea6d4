"""The README's examples, run word for word."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.domain import Recipe

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


@pytest.fixture
def workplace(photographs: Path, tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the files that the examples name."""
    (tmp_path / "photos").symlink_to(photographs)
    rows = [f"{number},photos/spring/{number:02}.jpg" for number in range(0, 40, 2)]
    (tmp_path / "urls.csv").write_text("\n".join(["id,image_url", *rows]))
    monkeypatch.setenv("REDIS_URL", valkey_url)
    return tmp_path


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return str(found)


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False)


def test_the_recipe_of_the_readme_is_one() -> None:
    recipe = Recipe.from_mapping(tomllib.loads(block("toml", "max_width")))
    assert (recipe.max_width, recipe.enhance) == (1600, "restore")


def test_the_python_example_runs(workplace: Path) -> None:
    (workplace / "example.py").write_text(block("python", "import pipeline"))
    done = run([sys.executable, "example.py"], workplace)
    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout
    assert len(list((workplace / "results").rglob("*.webp"))) == 40


@pytest.mark.slow
def test_the_shards_of_the_readme_train(workplace: Path) -> None:
    (line,) = [line for line in block("sh", "pipeline run").splitlines() if "webdataset" in line]
    done = run([sys.executable, "-m", *shlex.split(line)], workplace)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    (workplace / "train.py").write_text(block("python", "import webdataset") + "    print(image.size, about['key'])\n")
    done = run([sys.executable, "train.py"], workplace)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 20), done.stderr


@pytest.mark.slow
def test_the_commands_of_the_readme_run(workplace: Path) -> None:
    lines = [line.split("#")[0] for line in block("sh", "pipeline run").splitlines()]
    assert len(lines) >= 8
    for line in lines:
        command = shlex.split(line.replace("JOB", "nightly"))
        assert command[0] == "pipeline"
        done = run([sys.executable, "-m", *command], workplace)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        assert not done.stderr.strip() or "plan" in line
    assert len(list((workplace / "results").glob("*.jpg"))) == 20
