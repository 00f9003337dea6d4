"""One image before and after, as a saved notebook's page shows it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

import pipeline
from pipeline.display.compare import LONGEST_SIDE_PX, render_comparison
from pipeline.domain import Recipe
from tests.fixtures.photographs import make_photograph

RED, BLUE = (220, 30, 30), (30, 30, 220)


def compare(before: Image.Image, after: Image.Image) -> str:
    seconds = {"fetch": 0.002, "resize": 0.03, "store": 0.01}
    return render_comparison(before, after, bytes_before=200_000, bytes_after=50_000, suffix=".webp", seconds=seconds)


@pytest.fixture
def page(browser: Browser) -> Page:
    return browser.new_page(viewport={"width": 900, "height": 800})


def show(page: Page, html: str) -> None:
    """Show it as a file with no network, and wait for its pictures."""
    page.context.set_offline(True)
    page.set_content(html)
    page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth)")


def colour_at(page: Page, share: float) -> tuple[int, ...]:
    """Return the colour at a share of the picture's width, above the handle."""
    box = page.locator(".pipeline-compare").bounding_box()
    assert box
    spot = {"x": box["x"] + share * box["width"], "y": box["y"] + 0.2 * box["height"], "width": 1, "height": 1}
    with Image.open(io.BytesIO(page.screenshot(clip=spot))) as image:
        return image.convert("RGB").getcolors()[0][1]


def is_near(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(abs(a - b) < 12 for a, b in zip(one, other, strict=True))


def test_the_slider_divides_before_from_after(page: Page) -> None:
    show(page, compare(Image.new("RGB", (1200, 900), RED), Image.new("RGB", (600, 450), BLUE)))
    assert is_near(colour_at(page, 0.3), RED)
    assert is_near(colour_at(page, 0.7), BLUE)
    slider = page.get_by_role("slider")
    box = slider.bounding_box()
    assert box
    page.mouse.click(box["x"] + 0.85 * box["width"], box["y"] + 0.5 * box["height"])
    assert is_near(colour_at(page, 0.7), RED)
    assert is_near(colour_at(page, 0.95), BLUE)


def test_the_slider_moves_by_keys(page: Page) -> None:
    show(page, compare(Image.new("RGB", (600, 450), RED), Image.new("RGB", (600, 450), BLUE)))
    slider = page.get_by_role("slider", name="how much of the image before is shown")
    slider.focus()
    page.keyboard.press("Home")
    assert is_near(colour_at(page, 0.1), BLUE)
    page.keyboard.press("End")
    assert is_near(colour_at(page, 0.9), RED)


def test_sizes_bytes_and_seconds_are_said(page: Page) -> None:
    show(page, compare(Image.new("RGB", (1200, 900), RED), Image.new("RGB", (600, 450), BLUE)))
    for words in ("1200 × 900", "600 × 450", "200.0 kB", "50.0 kB", "25% of the bytes", "resize 30 ms"):
        expect(page.locator("body")).to_contain_text(words)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_images_of_every_mode_are_shown(mode: str) -> None:
    image = Image.new(mode, (40, 30))
    assert compare(image, image.convert("RGB")).count("data:image/jpeg") == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2500, 2000)])
def test_what_is_kept_in_the_notebook_is_bounded(size: tuple[int, int]) -> None:
    html = compare(Image.effect_noise((3000, 2000), 80).convert("RGB"), Image.effect_noise(size, 80).convert("RGB"))
    assert len(html) < 3 * 2 * LONGEST_SIDE_PX**2
    assert f'width="{min(size[0], max(1, round(size[0] * LONGEST_SIDE_PX / max(size))))}"' in html


def test_a_preview_is_shown_as_it_is_stored(tmp_path: Path) -> None:
    source = tmp_path / "a.jpg"
    source.write_bytes(make_photograph(1))
    preview = pipeline.preview(source, Recipe(max_width=100, enhance=None, format="webp"))
    assert preview.bytes_before == source.stat().st_size
    assert repr(preview).startswith("<Preview 320 × 240 → 100 × 75 .webp")
    html = preview._repr_html_()
    assert "after (webp)" in html
    assert len(repr(preview)) < 200
