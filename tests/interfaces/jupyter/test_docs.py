"""What docs/jupyter.md tells clients to do, done."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from pipeline.domain import Job, Progress, Recipe
from pipeline.state import connect
from tests.fixtures.jupyter import JupyterServer

DOCS = (Path(__file__).parents[3] / "docs" / "jupyter.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    return str(found)


@pytest.fixture
def job(jupyter_server: JupyterServer) -> str:
    """A job that has ended."""
    with connect(None, Path(jupyter_server.environment["PIPELINE_DATA_DIR"])) as store:
        told_of = Job("nightly", "/in", "/out", Recipe())
        store.create(told_of)
        store.acquire(told_of).publish(Progress(told_of.id, "completed", total=3, stored=3))
    return "nightly"


def test_a_client_with_jupyters_token_follows_a_job(jupyter_server: JupyterServer, job: str) -> None:
    environment = {"JUPYTER_URL": jupyter_server.url, "JUPYTER_TOKEN": jupyter_server.token, "JOB": job}
    code = block("python")
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["completed 3 of 3"], done.stderr


def test_a_page_of_jupyters_origin_follows_a_job_with_its_cookie(
    jupyter_server: JupyterServer, browser: Browser, job: str
) -> None:
    page = browser.new_page()
    page.goto(jupyter_server.link("/lab"))
    with page.expect_console_message(lambda message: message.text.startswith(job)) as said:
        page.evaluate(f"() => {{ {block('js')} }}")
    assert said.value.text == f"{job} completed 100"
