from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from pipeline.display.contact_sheet import BACKGROUND, make_contact_sheet, spread, write_contact_sheet
from pipeline.display.thumbnails import BACKDROP
from pipeline.errors import DestinationError

CELL_PX = 100
MARGIN = CELL_PX // 20


def save(path: Path, size: tuple[int, int] = (300, 300), colour: str = "#ff0000", mode: str = "RGB") -> Path:
    Image.new(mode, size, colour).save(path)
    return path


def centre_of(sheet: Image.Image, row: int, column: int) -> tuple[int, int]:
    pitch = CELL_PX + MARGIN
    return MARGIN + column * pitch + CELL_PX // 2, MARGIN + row * pitch + CELL_PX // 2


def test_images_fill_the_rows_in_their_order(tmp_path: Path) -> None:
    colours = ["#ff0000", "#00ff00", "#0000ff"]
    paths = [save(tmp_path / f"{n}.png", colour=colour) for n, colour in enumerate(colours)]
    sheet = make_contact_sheet(paths, columns=2, cell_px=CELL_PX)
    places = [(0, 0), (0, 1), (1, 0)]
    assert [sheet.getpixel(centre_of(sheet, *place)) for place in places] == [*map(ImageColor.getrgb, colours)]
    assert sheet.getpixel(centre_of(sheet, 1, 1)) == ImageColor.getrgb(BACKGROUND)


def test_gutters_are_as_wide_as_the_border(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png") for n in range(2)]
    sheet = make_contact_sheet(paths, cell_px=CELL_PX)
    background = ImageColor.getrgb(BACKGROUND)
    is_gutter = [sheet.getpixel((column, sheet.height // 2)) == background for column in range(sheet.width)]
    assert is_gutter == [True] * MARGIN + ([False] * CELL_PX + [True] * MARGIN) * 2


@pytest.mark.parametrize("size", [(900, 300), (300, 900), (20, 20), (1, 1)])
def test_image_is_whole_in_its_cell(tmp_path: Path, size: tuple[int, int]) -> None:
    sheet = make_contact_sheet([save(tmp_path / "a.png", size)], cell_px=CELL_PX)
    box = sheet.getchannel("B").point(lambda value: 255 * (value < 128)).getbbox()
    assert box is not None
    width, height = box[2] - box[0], box[3] - box[1]
    assert max(width, height) <= CELL_PX - 2 * MARGIN
    assert width / height == pytest.approx(size[0] / size[1], rel=0.05)


def test_image_is_shown_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (200, 100), "#ff0000")
    image.save(tmp_path / "a.jpg", exif=exif)
    box = (
        make_contact_sheet([tmp_path / "a.jpg"], cell_px=CELL_PX)
        .getchannel("B")
        .point(lambda value: 255 * (value < 128))
    )
    left, top, right, bottom = box.getbbox() or (0, 0, 0, 0)
    assert bottom - top > right - left


def test_transparent_parts_show_the_cell(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", colour="#ff000000", mode="RGBA")
    sheet = make_contact_sheet([path], cell_px=CELL_PX)
    assert sheet.getpixel(centre_of(sheet, 0, 0)) == ImageColor.getrgb(BACKDROP)


def test_broken_and_missing_files_leave_no_gap(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.png")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:60])
    paths = [tmp_path / "text.jpg", tmp_path / "missing.jpg", tmp_path / "cut.png", tmp_path, whole]
    sheet = make_contact_sheet(paths, cell_px=CELL_PX)
    assert sheet.size == (CELL_PX + 2 * MARGIN,) * 2
    assert sheet.getpixel(centre_of(sheet, 0, 0)) == (255, 0, 0)


def test_no_images_give_an_empty_sheet() -> None:
    assert make_contact_sheet([], cell_px=CELL_PX).getcolors() == [(110 * 110, ImageColor.getrgb(BACKGROUND))]


@given(count=st.integers(0, 500), most=st.integers(1, 100))
def test_spread_is_even_and_bounded(count: int, most: int) -> None:
    paths = [Path(str(number)) for number in range(count)]
    numbers = [int(path.name) for path in spread(paths, most)]
    assert len(numbers) == min(count, most)
    gaps = {after - before for before, after in itertools.pairwise(numbers)}
    assert not gaps or (min(gaps) > 0 and max(gaps) - min(gaps) <= 1)


def test_written_sheet_has_the_format_of_its_suffix(tmp_path: Path) -> None:
    write_contact_sheet([save(tmp_path / "a.png")], tmp_path / "sheet.jpg")
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.format == "JPEG"


def test_sheet_that_cannot_be_written_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match=r"cannot write the contact sheet '.*sheet.png': No such file"):
        write_contact_sheet([], tmp_path / "missing" / "sheet.png")
