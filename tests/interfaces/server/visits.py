"""What a person does on the page of a server, in a tab of a real browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, FilePayload, Locator, Page, expect

from tests.fixtures.photographs import make_photograph
from tests.fixtures.service import TOKEN, Service
from tests.fixtures.web import Reply, Web

# Remembers every value that the bars of a job show, by the name of the bar.
WATCH_BARS = """() => {
  window.shownByBar = {};
  new MutationObserver((changes) => {
    for (const { target } of changes) {
      const bar = `${target.closest("article").getAttribute("aria-labelledby")} ${target.getAttribute("aria-label")}`;
      (window.shownByBar[bar] ??= []).push(Number(target.getAttribute("aria-valuenow")));
    }
  }).observe(document.body, { subtree: true, attributeFilter: ["aria-valuenow"] });
}"""


@dataclass
class Visit:
    """A tab of a browser that knows nothing of other tests, and what a person does there.

    Attributes
    ----------
    page : Page
    complaints : list of str
        What the browser's console calls an error, and what no script caught.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} ({message.location})")

    def enter(self, service: Service) -> None:
        """Open the link that the server prints, and wait until the page is whole."""
        self.page.goto(f"{service.base_url}/?token={TOKEN}")
        expect(self.page.locator("#enhance option")).not_to_have_count(1)

    def type_urls(self, urls: Sequence[str], enhance: str = "none") -> None:
        """Fill the form."""
        self.page.get_by_label("Image URLs, one a line").fill("\n".join(urls))
        self.page.get_by_label("Enhance with").select_option(enhance)

    def press_submit(self) -> Job:
        """Press the form's button; the job that came of it."""
        with self.page.expect_response(is_submission) as answer:
            self.page.locator("#submit").click()
        return self.job(answer.value.json()["jobId"])

    def submit(self, urls: Sequence[str], enhance: str = "none") -> Job:
        """Have images processed."""
        self.type_urls(urls, enhance)
        return self.press_submit()

    def choose(self, *files: FilePayload) -> None:
        """Choose files in the form."""
        self.page.locator("#files").set_input_files(files)

    def job(self, job_id: str) -> Job:
        """Find a job on the page."""
        return Job(job_id, self.page.get_by_role("article").filter(has=self.page.get_by_text(job_id, exact=True)))


@dataclass(frozen=True)
class Job:
    """A job as the page shows it."""

    id: str
    card: Locator

    def expect_status(self, status: str) -> None:
        """Wait until the page says that the job is `status`."""
        expect(self.card.locator(".chip")).to_have_text(status)

    def bar(self, name: str) -> Locator:
        """Find one of its bars."""
        return self.card.get_by_role("progressbar", name=name)

    def button(self, name: str) -> Locator:
        """Find one of its buttons."""
        return self.card.get_by_role("button", name=name)

    def open_results(self) -> Locator:
        """Open the results; their tiles."""
        self.card.locator("summary", has_text="Results").click()
        return self.card.get_by_role("button", name="before and after")

    def open_failures(self) -> Locator:
        """Open the failures; their groups."""
        self.card.locator("summary", has_text="What failed").click()
        return self.card.locator(".failure-group")


@contextmanager
def visiting(browser: Browser, **options: Any) -> Iterator[Visit]:
    """Open a tab of its own until the end of the block."""
    context = browser.new_context(**options)
    try:
        yield Visit(context.new_page())
    finally:
        context.close()


def is_submission(response: Any) -> bool:
    """Whether a response answers the form."""
    return bool(response.request.method == "POST" and response.url.endswith("/jobs"))


def serve_photographs(web: Web, count: int, delay_s: float = 0.0) -> list[str]:
    """Serve photographs, each `delay_s` later than the one before; their URLs."""
    replies = [Reply(make_photograph(number), delay_s=number * delay_s) for number in range(count)]
    return [web.reply(f"/{number}.jpg", reply) for number, reply in enumerate(replies)]
