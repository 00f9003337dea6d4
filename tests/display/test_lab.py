"""The first notebook as a person meets it: a real JupyterLab in real Chromium."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect

from tests.fixtures.jupyter import JupyterServer

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "1-first-run.ipynb"
PATIENCE_MS = 120_000

# Keeps what the bars of the widget have shown.
WATCH_BARS = """() => {
  window.widths = [];
  setInterval(() => {
    const bars = document.querySelectorAll(".pipeline-live .progress-bar");
    if (bars.length) window.widths.push(bars[bars.length - 1].style.width);
  }, 50);
}"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    yield page
    page.close()


class Lab:
    """A notebook that is open in JupyterLab, and what a person does there."""

    def __init__(self, page: Page, server: JupyterServer, name: str) -> None:
        self.page, self.server, self.name = page, server, name
        page.goto(server.link(f"/lab/tree/{name}"))
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        expect(self.page.locator("#jp-bottom-panel")).to_contain_text(
            "Python 3 (ipykernel) | Idle", timeout=PATIENCE_MS
        )

    def run(self, words: str) -> None:
        cell = self.page.locator(".jp-Notebook .jp-CodeCell", has_text=words).first
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    @property
    def widget(self) -> Locator:
        return self.page.locator(".pipeline-live").first

    def wait_for_status(self, status: str) -> None:
        expect(self.widget.locator(".chip")).to_have_text(status, timeout=PATIENCE_MS)

    def stored(self) -> int:
        return int(self.widget.locator(".numbers strong").last.inner_text().replace(",", ""))

    def wait_until_stored(self, count: int) -> None:
        self.page.wait_for_function(
            """count => {
              const tallies = document.querySelectorAll(".pipeline-live .numbers strong");
              return tallies.length && Number(tallies[tallies.length - 1].textContent.replace(",", "")) >= count;
            }""",
            arg=count,
        )

    def save(self) -> None:
        self.page.keyboard.press("Control+s")
        expect(self.page.locator(".jp-mod-dirty")).to_have_count(0, timeout=PATIENCE_MS)

    def reopen(self) -> None:
        self.page.reload()
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell")

    def photograph(self, name: str) -> None:
        """Keep what is seen, where somebody asks for it."""
        if folder := os.environ.get("PIPELINE_TEST_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png")

    def end_kernel(self) -> None:
        headers = {"Authorization": f"token {self.server.token}"}
        for session in requests.get(f"{self.server.url}/api/sessions", headers=headers, timeout=60).json():
            requests.delete(f"{self.server.url}/api/sessions/{session['id']}", headers=headers, timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_first_notebook_runs_cancels_resumes_and_stays_readable(jupyter_server: JupyterServer, page: Page) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        # Enough photographs for a person to press a button in time.
        cell.source = cell.source.replace('Path("demo/photographs"), 40)', 'Path("demo/photographs"), 212)')
    nbformat.write(notebook, jupyter_server.root / NOTEBOOK.name)
    lab = Lab(page, jupyter_server, NOTEBOOK.name)
    lab.run("make_corpus(")
    expect(page.locator(".jp-OutputArea-output", has_text="files, such as")).to_be_visible(timeout=PATIENCE_MS)

    lab.run("job = pipeline.run(")
    lab.widget.wait_for()
    page.evaluate(WATCH_BARS)
    lab.wait_until_stored(10)
    lab.photograph("running")
    widths = [float(width.rstrip("%")) for width in page.evaluate("window.widths")]
    assert widths == sorted(widths)
    assert len(set(widths)) > 2

    lab.widget.get_by_role("button", name="Cancel").click()
    lab.wait_for_status("cancelled")
    stored = lab.stored()
    assert 10 <= stored < 200
    expect(lab.widget.get_by_role("button", name="Cancel")).to_be_hidden()
    lab.photograph("cancelled")

    lab.widget.get_by_role("button", name="Resume").click()
    lab.wait_until_stored(stored + 1)
    lab.save()
    lab.reopen()
    # The same kernel, which has gone on: the same widget, which lives.
    lab.wait_for_status("completed")
    expect(lab.widget.locator(".failed").first).to_be_visible()
    expect(lab.widget.locator("img").first).to_be_visible(timeout=PATIENCE_MS)
    # A snapshot beside the living widget has one too, hidden.
    expect(page.locator(".pipeline-job .lined >> visible=true").first).to_be_visible()
    lab.photograph("completed")

    lab.run("same = pipeline.attach(")
    snapshots = page.locator("[class*=pipeline-snapshot]")
    expect(snapshots).to_have_count(2, timeout=PATIENCE_MS)
    expect(snapshots.first).to_be_hidden()
    lab.save()
    lab.end_kernel()
    lab.reopen()
    # No kernel, no widget: what it showed last is still there, once, and nothing complains. JupyterLab forgets with a
    # page which display is which, so the older one says of when it is.
    expect(snapshots.first).to_be_visible(timeout=PATIENCE_MS)
    expect(snapshots.first).to_contain_text("UTC")
    expect(snapshots.last).to_contain_text("completed")
    expect(page.locator(".pipeline-live")).to_have_count(0)
    for complaint in page.get_by_text("Error displaying widget").all():
        expect(complaint).to_be_hidden()
    lab.photograph("reopened")
