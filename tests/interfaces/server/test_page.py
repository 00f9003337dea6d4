"""The page as a person meets it: real Chromium, a real server, and a real queue worker behind it."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

from tests.fixtures.photographs import make_photograph
from tests.fixtures.service import TOKEN, serving
from tests.fixtures.web import Reply
from tests.interfaces.server.visits import WATCH_BARS, Visit, is_submission, serve_photographs, visiting

# An element with this id exists only if a text became markup. No spaces: the server wants none in a URL.
MARKUP = "<img/id='injected'/src='x'/onerror='document.title=1'>"

# Drops files, given as [name, type, base64], on the page.
DROP = """(files) => {
  const dataTransfer = new DataTransfer();
  for (const [name, type, text] of files) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    dataTransfer.items.add(new File([bytes], name, { type }));
  }
  for (const type of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
  }
}"""


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open a tab on nothing yet."""
    with visiting(browser) as visit:
        yield visit


def photograph_file(name: str, seed: int = 1) -> FilePayload:
    """Make a file to choose."""
    return {"name": name, "mimeType": "image/jpeg", "buffer": make_photograph(seed)}


def find_free_port() -> int:
    """Return a port on which nobody listens."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def expect_names(page: Page) -> None:
    """Check that whoever does not see a control is told what it is."""
    controls = page.locator(":is(button, input, select, textarea, a, summary, [role=progressbar]):visible").all()
    assert controls
    for control in controls:
        expect(control).to_have_accessible_name(re.compile(r"\w"))


def expect_fits(page: Page) -> None:
    """Check that the page is not wider than the window."""
    widths = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1], widths


def expect_no_markup(page: Page) -> None:
    """Check that no element was made from `MARKUP`."""
    expect(page.locator("#injected")).to_have_count(0)
    assert page.title().endswith("image pipeline")


def tab_to(page: Page, control: Locator) -> None:
    """Go to a control as a keyboard does."""
    for _ in range(40):
        if control.evaluate("(node) => node === document.activeElement"):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"the Tab key never comes to {control}")


def test_the_token_of_a_link_leaves_the_address_bar_and_outlives_a_reload(service, visit):
    visit.enter(service)
    assert visit.page.url == f"{service.base_url}/"
    visit.page.reload()
    expect(visit.page.locator("#job-form")).to_be_visible()
    expect(visit.page.locator("#gate")).to_be_hidden()
    visit.page.goto("about:blank")
    visit.page.go_back()
    assert TOKEN not in visit.page.url


def test_who_comes_without_a_token_is_asked_for_it_and_gets_in_with_it(service, visit):
    page = visit.page
    page.goto(service.base_url)
    token = page.get_by_label("Token, or the whole link")
    expect(token).to_be_focused()
    expect(page.locator("#work")).to_be_hidden()
    expect_names(page)
    token.fill("not-the-token")
    page.keyboard.press("Enter")
    expect(page.locator("#token-reason")).to_contain_text("does not accept this token")
    expect(page.locator("#work")).to_be_hidden()
    token.fill(f"{service.base_url}/?token={TOKEN}")
    page.get_by_role("button", name="Open").click()
    expect(page.locator("#job-form")).to_be_visible()
    expect(page.locator("#gate")).to_be_hidden()


def test_bars_move_until_a_job_is_complete_with_the_right_counts(service, web, visit):
    visit.enter(service)
    visit.page.evaluate(WATCH_BARS)
    job = visit.submit(serve_photographs(web, 4, delay_s=0.7), enhance="restore")
    job.expect_status("completed")
    expect(job.card.locator(".job-count")).to_have_text("4 of 4 images")
    expect(job.card.locator(".stage-count")).to_have_text(["4", "4", "4", "4"])
    for name in ("All stages", "fetch", "resize", "enhance", "store"):
        expect(job.bar(name)).to_have_attribute("aria-valuenow", "100")
        shown = visit.page.evaluate("(bar) => window.shownByBar[bar]", f"title-{job.id} {name}")
        assert shown == sorted(shown), name
        assert any(0 < value < 100 for value in shown), (name, shown)
    assert service.status(job.id)["stored"] == 4
    expect(job.button("Cancel")).to_be_hidden()
    expect(job.button("Retry")).to_be_hidden()
    assert visit.complaints == []


def test_results_are_thumbnails_that_are_compared_with_their_originals_by_keyboard(service, web, visit):
    page = visit.page
    visit.enter(service)
    page.get_by_label("Width in pixels").fill("160")
    job = visit.submit(serve_photographs(web, 2))
    job.expect_status("completed")
    tiles = job.open_results()
    expect(tiles).to_have_count(2)
    tiles.last.scroll_into_view_if_needed()
    expect(job.card.locator(".thumbnail.loaded")).to_have_count(2)
    expect(tiles.first).to_contain_text("160 × 120 px")

    tiles.first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text("320 × 240 px")
    expect(dialog).to_contain_text("1 of 2")
    # What the recipe leaves out took no time.
    stages = dialog.get_by_label("Seconds by stage").get_by_role("listitem")
    expect(stages).to_have_text([re.compile(f"^{name} ") for name in ("fetch", "resize", "store")])
    slider = dialog.get_by_role("slider")
    expect(slider).to_be_focused()
    result = dialog.get_by_alt_text("The result")
    for key, value in (("ArrowRight", "51"), ("ArrowLeft", "50"), ("End", "100"), ("Home", "0")):
        page.keyboard.press(key)
        expect(slider).to_have_value(value)
        expect(result).to_have_css("clip-path", f"inset(0px 0px 0px {value}%)")
    for alt, width in (("The original", 320), ("The result", 160)):
        assert dialog.get_by_alt_text(alt).evaluate("(image) => image.naturalWidth") == width
    expect_names(page)
    dialog.get_by_role("button", name="Next image").click()
    expect(dialog).to_contain_text("2 of 2")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(tiles.first).to_be_focused()
    assert visit.complaints == []


def test_failures_say_why_and_what_to_do_and_a_retry_runs_them_again(service, web, visit):
    visit.enter(service)
    good = web.serve("/good.jpg", make_photograph(1))
    late = web.reply("/late.jpg", Reply(status=404), Reply(make_photograph(2)))
    job = visit.submit([good, late])
    job.expect_status("completed")
    expect(job.bar("All stages")).to_have_attribute("aria-valuenow", "100")
    expect(job.card.locator(".job-facts")).to_contain_text("1 failed")
    group = job.open_failures()
    expect(group).to_contain_text("MissingError")
    expect(group).to_contain_text("1 image")
    expect(group.locator(".message")).to_contain_text("404")
    expect(group).to_contain_text(late)
    expect(group.locator(".remedy")).to_have_text(re.compile(r"What to do: \w+.{10}"))

    job.button("Retry 1 failed image").click()
    expect(job.card.locator(".job-facts")).not_to_contain_text("failed")
    job.expect_status("completed")
    expect(job.card.locator("summary", has_text="What failed")).to_be_hidden()
    expect(job.button("Retry")).to_be_hidden()
    expect(job.open_results()).to_have_count(2)
    assert web.requests == {"/good.jpg": 1, "/late.jpg": 2}


def test_cancel_stops_a_job_that_runs(service, web, visit):
    visit.enter(service)
    slow = Reply(make_photograph(1), delay_s=1)
    urls = [web.reply(f"/{number}.jpg", slow) for number in range(300)]
    job = visit.submit(urls)
    web.wait_until_asked("/0.jpg")
    job.button("Cancel").click()
    job.expect_status("cancelled")
    expect(job.button("Cancel")).to_be_hidden()
    expect(job.button("Resume")).to_be_visible()
    assert service.status(job.id)["status"] == "cancelled"
    assert sum(web.requests.values()) < 300


def test_chosen_files_are_uploaded_and_one_that_is_no_image_is_listed_as_failed(service, visit):
    page = visit.page
    visit.enter(service)
    page.get_by_label("Enhance with").select_option("none")
    visit.choose(
        photograph_file("one.jpg", 1),
        {"name": "notes.jpg", "mimeType": "image/jpeg", "buffer": b"no image at all"},
        photograph_file("two.jpg", 2),
        photograph_file("unwanted.jpg", 3),
    )
    expect(page.locator("#chosen")).to_contain_text("4 files")
    page.get_by_role("button", name="Remove unwanted.jpg").click()
    expect(page.locator("#submit")).to_have_text("Process 3 files")
    job = visit.press_submit()
    job.expect_status("completed")
    expect(page.locator("#chosen")).to_be_hidden()
    expect(job.card.get_by_role("heading", level=3)).to_have_text("3 uploaded files")
    expect(job.card.locator(".job-count")).to_have_text("3 of 3 images")
    group = job.open_failures()
    expect(group).to_contain_text("NotAnImageError")
    expect(group).to_contain_text("notes.jpg")
    tiles = job.open_results()
    expect(job.card.locator(".tile-name")).to_have_text(["one.jpg", "two.jpg"])
    tiles.first.click()
    expect(page.get_by_role("dialog").get_by_alt_text("The original")).to_be_visible()
    expect(page.get_by_role("dialog")).to_contain_text("320 × 240 px")
    assert visit.complaints == []


def test_dropped_files_are_chosen_and_what_is_no_image_is_left_out(service, visit):
    page = visit.page
    visit.enter(service)
    files = [("one.jpg", "image/jpeg", make_photograph(1)), ("notes.txt", "text/plain", b"words")]
    page.evaluate(DROP, [[name, kind, base64.b64encode(data).decode()] for name, kind, data in files])
    expect(page.locator("#chosen .file-name")).to_have_text(["one.jpg"])
    expect(page.locator("#form-problem")).to_have_text("1 file is no image and was left out.")
    expect(page.locator("#drop-veil")).to_be_hidden()
    page.check("input[value=cover]")
    page.get_by_label("Enhance with").select_option("none")
    job = visit.press_submit()
    job.expect_status("completed")
    expect(job.card.locator(".job-meta")).to_contain_text("cover")
    assert visit.complaints == []


def test_a_server_that_was_killed_and_comes_back_finds_the_page_again(service, service_redis, web, visit, tmp_path):
    port = find_free_port()
    connection = visit.page.locator("#connection")
    # The jobs are run by the worker of `service`, which has the same Redis and lives on.
    with serving(tmp_path, service_redis, "--no-work", port=port) as first:
        visit.enter(first)
        job = visit.submit([web.reply("/slow.jpg", Reply(make_photograph(1), delay_s=2))])
        job.expect_status("processing")
        web.wait_until_asked("/slow.jpg")
        psutil.Process(first.pid).kill()
        expect(connection).to_have_text("Reconnecting …")
        service.wait_for_end(job.id)
        job.expect_status("processing")
        visit.type_urls([web.serve("/next.jpg", make_photograph(2))])
        visit.page.locator("#submit").click()
        expect(visit.page.locator("#form-problem")).to_contain_text("does not answer")
    with serving(tmp_path, service_redis, "--no-work", port=port):
        expect(connection).to_be_hidden()
        job.expect_status("completed")
        following = visit.press_submit()
        following.expect_status("completed")
        expect(following.open_results()).to_have_count(1)
        expect(visit.page.locator("#form-problem")).to_be_hidden()


def test_every_control_has_a_name_and_the_page_one_heading_and_a_language(service, web, visit):
    visit.enter(service)
    job = visit.submit([*serve_photographs(web, 1), web.url("/missing.jpg")])
    visit.choose(photograph_file("one.jpg"))
    job.expect_status("completed")
    job.open_failures()
    expect(job.open_results()).to_have_count(1)
    expect_names(visit.page)
    expect(visit.page.locator("h1")).to_have_count(1)
    expect(visit.page.locator("html")).to_have_attribute("lang", "en")
    expect(visit.page.locator("img:not([alt])")).to_have_count(0)


def test_a_job_can_be_submitted_with_the_keyboard_alone(service, web, visit):
    page = visit.page
    visit.enter(service)
    tab_to(page, page.get_by_label("Image URLs, one a line"))
    page.keyboard.type(web.serve("/typed.jpg", make_photograph(1)))
    tab_to(page, page.get_by_role("radio", name="inside"))
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="cover")).to_be_checked()
    tab_to(page, page.get_by_label("Enhance with"))
    page.keyboard.type("nothing")
    tab_to(page, page.get_by_role("button", name="Process 1 URL"))
    with page.expect_response(is_submission) as answer:
        page.keyboard.press("Enter")
    job = visit.job(answer.value.json()["jobId"])
    expect(job.card.get_by_role("heading")).to_be_focused()
    job.expect_status("completed")
    expect(job.card.locator(".job-meta")).to_contain_text("cover")
    tab_to(page, job.card.locator("summary", has_text="Results"))
    page.keyboard.press("Enter")
    expect(job.card.get_by_role("button", name="Compare typed.jpg")).to_be_visible()


def test_nothing_scrolls_sideways_on_a_small_telephone(service, web, browser):
    with visiting(browser, viewport={"width": 360, "height": 740}, has_touch=True) as visit:
        page = visit.page
        page.goto(service.base_url)
        expect(page.locator("#token")).to_be_visible()
        expect_fits(page)
        visit.enter(service)
        visit.choose(photograph_file("a-long-name-" * 8 + ".jpg"))
        expect_fits(page)
        job = visit.submit([*serve_photographs(web, 3), web.url(f"/{'missing' * 30}.jpg")])
        job.expect_status("completed")
        job.open_failures()
        tiles = job.open_results()
        expect(tiles).to_have_count(3)
        expect_fits(page)
        tiles.first.click()
        expect(page.get_by_role("dialog")).to_contain_text("320 × 240 px")
        expect_fits(page)


def test_the_page_follows_the_systems_light_or_dark(service, browser, tmp_path):
    lightness, pictures = {}, {}
    for scheme in ("light", "dark"):
        with visiting(browser, color_scheme=scheme, viewport={"width": 1280, "height": 900}) as visit:
            visit.enter(service)
            colour = visit.page.locator("body").evaluate("(body) => getComputedStyle(body).backgroundColor")
            lightness[scheme] = sum(map(int, re.findall(r"\d+", colour)[:3]))
            pictures[scheme] = Path(tmp_path, f"{scheme}.png")
            visit.page.screenshot(path=pictures[scheme])
    assert lightness["dark"] < 200 < 600 < lightness["light"]
    assert pictures["dark"].read_bytes() != pictures["light"].read_bytes()


def test_what_a_client_writes_is_shown_as_text(service, web, visit):
    page = visit.page
    visit.enter(service)
    page.get_by_label("Enhance with").select_option("none")
    # A name that the person sees before the server has, and what the server makes of it.
    visit.choose(photograph_file(MARKUP.replace("/", " ") + ".jpg"))
    expect(page.locator("#chosen .file-name")).to_have_text(MARKUP.replace("/", " ") + ".jpg")
    job = visit.press_submit()
    job.expect_status("completed")
    tiles = job.open_results()
    expect(tiles).to_contain_text("img id='injected'")
    tiles.click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_contain_text("img id='injected'")
    page.keyboard.press("Escape")
    expect_no_markup(page)

    # In a refusal, in a failure, and in a result.
    visit.type_urls([f"ftp://{MARKUP}"])
    page.locator("#submit").click()
    expect(page.locator("#form-problem")).to_contain_text("<img/id='injected'")
    expect_no_markup(page)
    photograph = web.serve("/0.jpg", make_photograph(1))
    job = visit.submit([f"{web.url('/missing')}?{MARKUP}", f"{web.url('/')}{MARKUP}", f"{photograph}?{MARKUP}"])
    job.expect_status("completed")
    expect(job.open_failures()).to_contain_text("<img/id='injected'")
    job.open_results().click()
    # A query may be secret.
    expect(page.get_by_role("dialog")).to_contain_text(f"{photograph}?…")
    expect(page.get_by_role("dialog")).to_contain_text("The original cannot be shown: its address has a query")
    expect_no_markup(page)
