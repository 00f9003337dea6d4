"""``dask pipeline``: the commands in Dask's own command line."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import click

from pipeline import __version__
from pipeline.interfaces.cli.dask_command import pipeline

ENTRY = "pipeline.interfaces.cli.dask_command:pipeline"

# As Dask does with what it finds among the entry points.
DASK = """
import dask.cli
from pipeline.interfaces.cli.dask_command import pipeline
dask.cli.cli.add_command(pipeline)
dask.cli.cli()
"""


def run_dask(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", DASK, *arguments], capture_output=True, text=True, check=False)


def test_dask_finds_a_command_of_click_s() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["dask_cli"] == {"pipeline": ENTRY}
    assert isinstance(pipeline, click.Command)


def test_words_are_passed_on_as_they_are() -> None:
    assert run_dask("pipeline", "--version").stdout == f"{__version__}\n"
    assert "Usage: dask pipeline run" in run_dask("pipeline", "run", "--help").stdout
    done = run_dask("pipeline", "run", "photos/", "out/", "--nonsense")
    assert done.returncode == 2
    assert "--nonsense" in done.stderr
    assert "see `dask pipeline run --help`" in done.stderr


def test_dask_s_other_commands_do_not_wait_for_ours() -> None:
    """Dask imports every entry point at each of its commands."""
    heavy = "{'distributed', 'keras', 'numpy', 'pandas', 'redis', 'tornado', 'typer'}"
    script = f"import sys, pipeline.interfaces.cli.dask_command\nprint({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
