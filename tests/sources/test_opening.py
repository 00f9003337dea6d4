"""Rules of what a collection may be."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Item
from pipeline.errors import SourceError
from pipeline.sources import first_item, key_for_url, open_collection


@pytest.mark.parametrize("host", ["example.com", "[::1]:80"])
def test_an_http_url_is_one_image(host: str) -> None:
    url = f"https://user:secret@{host}/cat?token=secret"
    collection = open_collection(url)
    assert list(collection) == list(collection) == [Item(key_for_url(url), url)]
    assert collection.name == f"https://{host}/cat?…"


def test_a_file_is_one_image_with_the_same_key_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cat.JPG").touch()
    monkeypatch.chdir(tmp_path)
    expected = [Item(key_for_url(f"{tmp_path}/cat.JPG"), f"{tmp_path}/cat.JPG")]
    for collection in ("cat.JPG", tmp_path / "cat.JPG", ["cat.JPG"], [tmp_path / "cat.JPG"]):
        assert list(open_collection(collection)) == expected


def test_a_list_mixes_paths_and_urls_and_keeps_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    collection = open_collection(["b.jpg", "https://example.com/a.jpg", Path("c/d.jpg"), "~/e.jpg", "s3://b/f.jpg"])
    assert [item.url for item in collection] == [
        f"{tmp_path}/b.jpg",
        "https://example.com/a.jpg",
        f"{tmp_path}/c/d.jpg",
        "/home/me/e.jpg",
        "s3://b/f.jpg",
    ]
    assert collection.name == "list of 5"


def test_the_same_url_has_the_same_key_in_a_list_a_manifest_and_alone(tmp_path: Path) -> None:
    url = "https://example.com/cat.jpg?v=1"
    manifest = tmp_path / "list.txt"
    manifest.write_text(url)
    keys = {first_item(open_collection(collection)).key for collection in (url, [url, url], manifest)}
    assert keys == {key_for_url(url)}


@pytest.mark.parametrize(
    ("collection", "message"),
    [
        ("", "cannot read the collection '': allowed is a folder, glob, URL or manifest"),
        ("  ", "cannot read the collection '  ': allowed is a folder, glob, URL or manifest"),
        ("nowhere", "cannot read 'nowhere': no such file or folder"),
        ("nowhere/*.jpg", "cannot read '{tmp}/nowhere/': no such file or folder"),
        ("a\0b", "cannot read '{tmp}/a\\x00b': "),
        ("x" * 300, "cannot read '{tmp}/" + "x" * 300 + "': File name too long"),
        ("what.doc", "cannot read 'what.doc': neither a manifest nor an image; allowed are .txt, .csv"),
        ("list.parquet", "cannot read '{tmp}/list.parquet': Parquet file size is 0 bytes"),
        (
            "list.parquet.gz",
            "cannot read the manifest 'list.parquet.gz': Parquet compresses its columns itself; allowed",
        ),
        ("parts.parquet", "cannot read '{tmp}/parts.parquet': there are no .parquet files directly in this folder"),
        ("/dev/null", "cannot read '/dev/null': it is neither file nor folder"),
        ("nope://bucket/x", "cannot read 'nope://bucket/x': Protocol not known: nope"),
        ("memory://me:secret@nowhere", "cannot read 'memory://nowhere': no such file or folder"),
        ("memory://nowhere", "cannot read 'memory://nowhere': no such file or folder"),
        ("zip://*.jpg::s3://b/a.zip", "cannot read 'zip://*.jpg::s3://b/a.zip': chained URLs (with '::') are not"),
        ([], "cannot read the list of images: it is empty"),
        (["a.jpg", None], "entry 2 of the list of images is None; allowed are paths and URLs"),
        (["a.jpg", " "], "entry 2 of the list of images is ' '; allowed are paths and URLs"),
        ([b"a.jpg"], "entry 1 of the list of images is b'a.jpg'; allowed are paths and URLs"),
    ],
)
def test_what_is_no_collection_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: object, message: str
) -> None:
    for name in ("what.doc", "list.parquet", "list.parquet.gz"):
        (tmp_path / name).touch()
    (tmp_path / "parts.parquet").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        open_collection(collection)
    assert str(caught.value).startswith(message.replace("{tmp}", str(tmp_path)))
    assert "\n" not in str(caught.value)


@given(st.text(st.characters()))
def test_any_text_opens_or_is_refused(text: str) -> None:
    with contextlib.suppress(SourceError):
        open_collection(f"/nowhere/{text}")


@pytest.mark.parametrize(
    ("name", "looks_for"),
    [
        ("folder", ".apng, .avif, .avifs, .bmp"),
        ("folder/*.jpg", "files that match"),
        ("empty.txt", "a URL or path in each line"),
        ("empty.csv", "a URL or path in 'url' of each row"),
    ],
)
def test_an_empty_collection_says_what_was_looked_for(tmp_path: Path, name: str, looks_for: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing yet\n")
    (tmp_path / "empty.csv").write_text("url\n")
    collection = open_collection(tmp_path / name)
    with pytest.raises(SourceError) as caught:
        first_item(collection)
    assert str(caught.value).startswith(f"no images in '{tmp_path / name}'; looked for {looks_for}")


def test_the_first_item_is_the_first_of_every_iteration() -> None:
    collection = open_collection(["https://example.com/a.jpg", "https://example.com/b.jpg"])
    assert first_item(collection) == first_item(collection) == next(iter(collection))
