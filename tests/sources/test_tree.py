"""Rules of folders and globs, on the local disk and in fsspec's memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from pipeline.errors import SourceError
from pipeline.sources import open_collection
from pipeline.sources.suffixes import IMAGE_SUFFIXES
from pipeline.stages.codec import READABLE


def make_files(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def keys_of(*args: object, **kwargs: object) -> list[str]:
    return [item.key for item in open_collection(*args, **kwargs)]


@pytest.fixture
def memory() -> Iterator[str]:
    """Keep photographs in a bucket in memory; return its URL."""
    fs = MemoryFileSystem()
    for name in ("photos/b.jpg", "photos/sub/a.PNG", "photos/sub/note.txt", "photos/.git/x.jpg", "photos/out/b.jpg"):
        fs.pipe(f"/bucket/{name}", b"")
    yield "memory://bucket"
    fs.rm("/bucket", recursive=True)


def test_a_folder_gives_its_images_at_any_depth_in_order(tmp_path: Path) -> None:
    make_files(tmp_path, "b.jpg", "a.PNG", "z/deep/er/x.webp", "c/y.tif", "notes.txt", "raw.heic", "noext")
    collection = open_collection(tmp_path)
    items = list(collection)
    assert [item.key for item in items] == ["a", "b", "c/y", "z/deep/er/x"]
    assert [item.url for item in items[:3]] == [f"{tmp_path}/a.PNG", f"{tmp_path}/b.jpg", f"{tmp_path}/c/y.tif"]
    assert list(collection) == items


def test_a_folder_has_no_hidden_files_links_to_folders_ledgers_or_pipes(tmp_path: Path) -> None:
    make_files(tmp_path, "a.jpg", ".b.jpg", ".hidden/c.jpg", "_ledger/job/d.jpg", "sub/_ledger/e.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    assert keys_of(tmp_path) == ["a"]


def test_a_link_to_a_file_is_taken_even_if_it_is_broken(tmp_path: Path) -> None:
    """A missing original is a failure to be counted, not an image that never was."""
    make_files(tmp_path, "store/1.bin")
    (tmp_path / "good.jpg").symlink_to(tmp_path / "store/1.bin")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "store/2.bin")
    assert keys_of(tmp_path) == ["gone", "good"]


def test_a_name_that_is_not_utf8_can_be_written_down(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.jpg")).touch()
    (item,) = open_collection(tmp_path)
    assert item.key == "caf_"
    assert item.url.encode().startswith(bytes(tmp_path) + b"/caf\xef\xbf\xbd")


def test_folders_that_clash_get_digests(tmp_path: Path) -> None:
    make_files(tmp_path, "a:b/x.jpg", "a_b/x.jpg", "dog/x.jpg")
    clashing, other, dog = keys_of(tmp_path)
    assert clashing.startswith("a_b-")
    assert other.startswith("a_b-")
    assert clashing != other
    assert dog == "dog/x"


def test_every_format_that_is_decoded_is_found_by_a_suffix() -> None:
    Image.init()
    format_by_suffix = Image.registered_extensions()
    assert {format_by_suffix[suffix] for suffix in IMAGE_SUFFIXES} == set(READABLE)


@pytest.mark.parametrize("destination", ["out", "./sub/../out/", "deep/er"])
def test_the_destination_in_the_folder_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, destination: str
) -> None:
    make_files(tmp_path, "a.jpg", "sub/b.jpg", f"{destination}/a.jpg")
    monkeypatch.chdir(tmp_path)
    assert "a" in keys_of(".")[0]
    assert keys_of(".", exclude=destination) == ["a", "sub/b"]
    assert keys_of("**/*.jpg", exclude=destination) == ["a", "sub/b"]


def test_the_destination_is_known_behind_a_link(tmp_path: Path) -> None:
    make_files(tmp_path, "photos/a.jpg", "photos/out/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert keys_of(tmp_path / "link", exclude=f"{tmp_path}/photos/out") == ["a"]


def test_whether_the_destination_exists_changes_no_key(tmp_path: Path) -> None:
    make_files(tmp_path, "Out/a.jpg")
    before = keys_of(tmp_path, exclude=f"{tmp_path}/out")
    make_files(tmp_path, "out/b.jpg")
    assert keys_of(tmp_path, exclude=f"{tmp_path}/out") == before == ["Out/a"]


@pytest.mark.parametrize("collection", ["photos", "photos/*.jpg"])
def test_the_destination_cannot_be_the_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: str
) -> None:
    make_files(tmp_path, "photos/a.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"photos/?' as collection and destination at once: results would overwrite"):
        open_collection(collection, exclude="photos")


@pytest.mark.parametrize("destination", ["elsewhere", "photos2", ".", "memory://photos"])
def test_a_destination_elsewhere_leaves_nothing_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, destination: str
) -> None:
    make_files(tmp_path, "photos/a.jpg")
    monkeypatch.chdir(tmp_path)
    assert keys_of("photos", exclude=destination) == ["a"]


def test_a_glob_takes_whatever_matches_with_keys_below_its_fixed_folder(tmp_path: Path) -> None:
    make_files(tmp_path, "p/2024/a.jpg", "p/2024/b.dat", "p/2024/raw/c.jpg", "p/2023/d.jpg", "p/e.jpg")
    assert keys_of(f"{tmp_path}/p/**/*.jpg") == ["e", "2023/d", "2024/a", "2024/raw/c"]
    assert keys_of(f"{tmp_path}/p/2024/*") == ["a", "b"]
    assert keys_of(f"{tmp_path}/p/202[!3]/**") == ["2024/a", "2024/b", "2024/raw/c"]


def test_what_exists_under_the_name_of_a_glob_is_no_glob(tmp_path: Path) -> None:
    make_files(tmp_path, "photos [2024]/a.jpg", "photos 2/b.jpg")
    assert keys_of(f"{tmp_path}/photos [2024]") == ["a"]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path, "photos/a.jpg")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [item.url for item in open_collection("~/photos")] == [f"{tmp_path}/photos/a.jpg"]
    assert [item.url for item in open_collection("~/pho*/*")] == [f"{tmp_path}/photos/a.jpg"]


def test_other_file_systems_are_walked_the_same_way(memory: str) -> None:
    items = list(open_collection(f"{memory}/photos/", exclude=f"{memory}/photos/out"))
    assert [(item.key, item.url) for item in items] == [
        ("b", "memory://bucket/photos/b.jpg"),
        ("sub/a", "memory://bucket/photos/sub/a.PNG"),
    ]
    assert fsspec.open(items[0].url).open().read() == b""


@pytest.mark.parametrize("glob", ["photos/s*/*", "*/sub/**"])
def test_other_file_systems_have_globs(memory: str, glob: str) -> None:
    urls = {item.url for item in open_collection(f"{memory}/{glob}")}
    assert urls == {f"{memory}/photos/sub/a.PNG", f"{memory}/photos/sub/note.txt"}


def test_a_url_of_a_local_folder_gives_absolute_paths(tmp_path: Path) -> None:
    make_files(tmp_path, "a.jpg")
    assert [item.url for item in open_collection(tmp_path.as_uri())] == [f"{tmp_path}/a.jpg"]


@pytest.fixture
def guarded(memory: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let nobody list the folders named ``sub``; a mode would not do, since it does not stop root."""
    list_folder = MemoryFileSystem.ls

    def ls(self: MemoryFileSystem, path: str, **kwargs: object) -> object:
        if path.rstrip("/").endswith("sub"):
            raise PermissionError(path)
        return list_folder(self, path, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    return memory


def test_a_folder_that_may_not_be_listed_is_one_item_that_fails(guarded: str) -> None:
    items = [(item.key, item.url) for item in open_collection(f"{guarded}/photos")]
    assert items == [
        ("b", f"{guarded}/photos/b.jpg"),
        ("out/b", f"{guarded}/photos/out/b.jpg"),
        ("sub/unreadable", f"{guarded}/photos/sub/"),
    ]


def test_a_collection_that_may_not_be_listed_is_an_error(guarded: str) -> None:
    with pytest.raises(SourceError, match=r"cannot read 'memory://bucket/photos/sub': permission denied"):
        list(open_collection(f"{guarded}/photos/sub"))
