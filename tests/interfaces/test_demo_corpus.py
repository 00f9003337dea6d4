from __future__ import annotations

import http.client
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import SourceError
from pipeline.interfaces.demo.broken import ANSWERS, BROKEN_FILES
from pipeline.interfaces.demo.corpus import (
    ENCODINGS,
    Broken,
    Encoding,
    Studio,
    Variant,
    crop_box,
    make_corpus,
    plan_corpus,
)
from pipeline.interfaces.demo.server import serve_folder

FORMAT_BY_SUFFIX = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".avif": "AVIF", ".tif": "TIFF", ".gif": "GIF",
    ".bmp": "BMP",
}  # fmt: skip


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio()


def small_variant(name: str, photograph: str = "rocket", orientation: int = 1) -> Variant:
    encoding = next(encoding for encoding in ENCODINGS if encoding.name == name)
    return Variant(f"a{encoding.suffix}", photograph, encoding, (160, 120), (0.9, 0.5, 0.5), orientation)


def open_variant(studio: Studio, variant: Variant, folder: Path) -> Image.Image:
    path = folder / variant.name
    path.write_bytes(studio.render(variant))
    with Image.open(path) as image:
        image.load()
        return image


@given(count=st.integers(0, 400), seed=st.integers(0, 1000))
def test_plan_has_as_many_entries_as_asked_with_unique_names(count: int, seed: int) -> None:
    planned = plan_corpus(count, seed)
    assert len({entry.name for entry in planned}) == len(planned) == count
    assert sum(isinstance(entry, Broken) for entry in planned) <= count / 8


def test_plan_is_the_same_every_time() -> None:
    assert plan_corpus(216) == plan_corpus(216)


def test_plan_of_the_demo_has_every_encoding_and_everything_broken_once() -> None:
    planned = plan_corpus(216)
    broken = Counter(entry.kind for entry in planned if isinstance(entry, Broken))
    assert broken == Counter([*BROKEN_FILES, *ANSWERS])
    assert {entry.encoding.name for entry in planned if isinstance(entry, Variant)} == {e.name for e in ENCODINGS}


def test_plan_of_the_demo_really_differs_in_size() -> None:
    sizes = [entry.size for entry in plan_corpus(216) if isinstance(entry, Variant)]
    assert min(map(min, sizes)) < 330
    assert max(map(max, sizes)) > 2500
    shapes = Counter((width > height) - (width < height) for width, height in sizes)
    assert min(shapes[1], shapes[0], shapes[-1]) > 15


@given(
    photograph=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    wanted=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    crop=st.tuples(st.floats(0.1, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_crop_box_lies_in_the_photograph(
    photograph: tuple[int, int], wanted: tuple[int, int], crop: tuple[float, float, float]
) -> None:
    left, top, right, bottom = crop_box(photograph, wanted, crop)
    assert 0 <= left < right <= photograph[0]
    assert 0 <= top < bottom <= photograph[1]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
def test_every_encoding_is_what_its_name_says(encoding: Encoding, studio: Studio, tmp_path: Path) -> None:
    variant = small_variant(encoding.name)
    image = open_variant(studio, variant, tmp_path)
    assert image.format == FORMAT_BY_SUFFIX[variant.encoding.suffix]
    assert image.size == variant.size
    assert image.mode == ("P" if variant.encoding.name == "gif" else variant.encoding.mode)
    assert ("progressive" in image.info) == (variant.encoding.name == "progressive-jpeg")
    assert bool(image.info.get("icc_profile")) == (variant.encoding.name == "wide-gamut-jpeg")


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_rotated_image_is_upright_for_a_viewer(orientation: int, studio: Studio, tmp_path: Path) -> None:
    upright = open_variant(studio, small_variant("jpeg"), tmp_path)
    rotated = open_variant(studio, small_variant("rotated-jpeg", orientation=orientation), tmp_path)
    assert rotated.getexif()[0x0112] == orientation
    shown = ImageOps.exif_transpose(rotated)
    difference = sum(abs(a - b) for a, b in zip(shown.tobytes(), upright.tobytes(), strict=True)) / (160 * 120 * 3)
    assert difference < 4


def test_corpus_is_the_planned_files_and_reports_each(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    names = make_corpus(tmp_path / "corpus", 16, lambda done, total: calls.append((done, total)))
    assert names == [entry.name for entry in plan_corpus(16)]
    assert calls == [(done, 16) for done in range(1, 17)]
    files = {path.name for path in (tmp_path / "corpus").iterdir()}
    assert files == {name for name in names if not name.startswith("answers/")}


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("truncated", OSError),
        ("error-page", UnidentifiedImageError),
        ("empty", UnidentifiedImageError),
        ("pixel-bomb", Image.DecompressionBombError),
    ],
)
def test_broken_file_cannot_be_decoded(kind: str, error: type[Exception], studio: Studio, tmp_path: Path) -> None:
    path = tmp_path / kind
    path.write_bytes(BROKEN_FILES[kind].spoil(studio.render(small_variant("jpeg"))))
    with pytest.raises(error), Image.open(path) as image:
        image.load()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, http.client.HTTPConnection]]:
    folder = tmp_path_factory.mktemp("served")
    (folder.parent / "secret.txt").write_text("secret")
    (folder / "a b.jpg").write_bytes(b"bytes of an image")
    with serve_folder(folder) as base_url:
        connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=10)
        yield folder, connection
        connection.close()


def test_server_answers_with_files_on_one_connection(served: tuple[Path, http.client.HTTPConnection]) -> None:
    _, connection = served
    sockets = set()
    for _ in range(3):
        connection.request("GET", "/a%20b.jpg")
        sockets.add(connection.sock)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"bytes of an image")
        assert response.headers["Content-Type"] == "image/jpeg"
        assert "ETag" not in response.headers
    assert len(sockets) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/missing.jpg", 404), ("/answers/404/x.jpg", 404), ("/answers/403/x.jpg", 403), ("/answers/500/x.jpg", 500),
        ("/../secret.txt", 403), ("/%2e%2e/secret.txt", 403), ("/answers/200/x.jpg", 404),
    ],
)  # fmt: skip
def test_server_answers_with_errors(path: str, status: int, served: tuple[Path, http.client.HTTPConnection]) -> None:
    _, connection = served
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    assert response.status == status


def test_server_keeps_silent(served: tuple[Path, http.client.HTTPConnection]) -> None:
    _, connection = served
    silent = http.client.HTTPConnection(connection.host, connection.port, timeout=0.3)
    silent.request("GET", "/answers/silence/x.jpg")
    with pytest.raises(TimeoutError):
        silent.getresponse()
    silent.close()


def test_server_does_not_start_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such folder"), serve_folder(tmp_path / "missing"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib\n"
            "from pipeline.interfaces.demo.server import serve_folder\n"
            "with serve_folder(pathlib.Path(sys.argv[1])) as base_url:\n"
            "    print(base_url, flush=True)\n"
            "    sys.stdin.read()\n",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with parent:
        assert parent.stdout is not None
        address = urlsplit(parent.stdout.readline().decode().strip()).netloc
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.request("GET", "/missing.jpg")
        connection.getresponse().read()
        parent.send_signal(signal.SIGKILL)
        # The open connection ends with the server: no need to ask again and again.
        readable, _, _ = select.select([connection.sock], [], [], 10)
        assert readable
        assert connection.sock.recv(1) == b""
        connection.close()
