"""A real browser, and a scheduler of Dask's own command that preloads the page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import Client
from playwright.sync_api import Browser, Page


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open a tab that is to complain of nothing but of a dashboard that has ended with its job."""
    complaints: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    page.close()
    assert [text for text in complaints if "websocket" not in text.lower()] == []


@dataclass(frozen=True)
class Served:
    """A scheduler and the address of its dashboard."""

    address: str
    dashboard: str


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run a scheduler that preloads the page and a worker, by Dask's own commands as the docs say."""
    folder = tmp_path_factory.mktemp("scheduler")
    file = folder / "scheduler.json"
    common = ["--host", "127.0.0.1", "--scheduler-file", str(file)]
    preload = ["--port", "0", "--dashboard-address", "127.0.0.1:0", "--preload", "pipeline.interfaces.dashboard"]
    with (
        running("scheduler", *preload, *common, folder=folder),
        running("worker", "--nthreads", "2", "--no-nanny", "--no-dashboard", *common, folder=folder),
        Client(scheduler_file=str(file), set_as_default=False, timeout=30) as client,
    ):
        client.wait_for_workers(1, timeout=30)
        port = json.loads(file.read_text())["services"]["dashboard"]
        yield Served(client.scheduler.address, f"http://127.0.0.1:{port}")


@contextmanager
def running(*command: str, folder: Path) -> Iterator[None]:
    """Run one of Dask's commands until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()
