"""No name, link or manifest makes a run read or write outside what its user has named."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from pipeline.domain import FetchPolicy, Item, Job, ManifestColumns, Recipe
from pipeline.errors import LinkError
from pipeline.kept_list import keep_list
from pipeline.runner.ledger import Ledger
from pipeline.sealing import Seal, list_purpose
from pipeline.sources import Collection, folder_of, open_collection
from pipeline.stages.fetch import Fetched, Fetcher, Unchanged, Unfetched
from pipeline.stages.picture import Picture
from pipeline.stages.store import prepare_image, write_image

NAMES = [
    *("..", "../up", "../../up", "a/../../up", "a/..", "./a", "a/./b", "/etc/cron.d/up", "//host/share/up", "~/up"),
    *("C:\\up", "C:/up", "C:up", "\\\\server\\share\\up", "..\\..\\up", "\\\\?\\C:\\up", "\\\\.\\PhysicalDrive0"),
    *("CON", "con.jpg", "NUL", "nul.tar.gz", "AUX", "PRN", "COM1", "LPT9.txt", "COM¹", "CONIN$", "a/NUL/b"),
    *("trailing.", "trailing ", "trailing...", " leading", "...", ".", " ", "a/ /b", "a//b", "a/", "/"),
    *("a:b", "a::$DATA", "a.jpg:hidden", "a|b", "a<b>", 'a"b', "a?b", "a*b", "%2e%2e/up", "..%2fup", "%00"),
    *("a\0b", "a\0.jpg", "\0", "a\nb", "a\r\nb", "a\tb", "\x1b[31m", "\x7f", "\u202egpj.exe", "\u200b", "\ufeffa"),
    *("_ledger/job/part-000000.parquet", "_LEDGER/x", "_ledger", "_Ledger/../x", "_shards/job/1.piece", "a/_ledger/x"),
    *("x" * 300, "x/" * 300, "é" * 200, "\U0001f600" * 100, "x" * 151, "/".join(["y" * 140] * 20)),
    *("cat", "Cat", "CAT", "cat.jpg", "cat.JPG", "cafe\u0301", "caf\u00e9", "CAF\u00c9", "stra\u00dfe", "STRASSE"),
    *(
        "\u212a",
        "k",
        "K",
        "\ufb01le",
        "file",
        "line-000001",
        "row-000002",
        "a-0123456789abcdef",
        ".hidden",
        "-rf",
        "$(x)",
    ),
    *("`x`", "a;b", "a&b", "a\u2028b", "\ud800", "con\u0301", "nul\u200b", "a\u0000/../../up", "file:///etc/passwd"),
]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Make a destination with a ledger that must stay as it is."""
    ledger = tmp_path / "home" / "out" / "_ledger" / "job" / "part-000000.parquet"
    ledger.parent.mkdir(parents=True)
    ledger.write_bytes(b"ledger")
    return tmp_path / "home" / "out"


def store_all(items: Iterable[Item], out: Path) -> list[str]:
    picture = Picture(Image.new("RGB", (2, 2)), "PNG")
    ready = (prepare_image(picture, item.key, str(out), Recipe()) for item in items)
    return [write_image(each, str(out)).output for each in ready]


def require_inside(outputs: Sequence[str], out: Path, before: set[Path]) -> None:
    """Each has its own file in the destination, and there is nothing else anywhere."""
    files = {path for path in out.parent.parent.rglob("*") if path.is_file()} - before
    assert files == {Path(output) for output in outputs}
    assert len({str(path).casefold() for path in files}) == len(outputs), "on Windows and macOS too"
    assert all(path.resolve().is_relative_to(out) for path in files)
    assert not any(part.casefold() in {"_ledger", "_shards"} for path in files for part in path.relative_to(out).parts)
    assert (out / "_ledger" / "job" / "part-000000.parquet").read_bytes() == b"ledger"


def test_no_name_in_a_manifest_leads_out_of_the_destination(tmp_path: Path, out: Path) -> None:
    manifest = tmp_path / "list.jsonl"
    rows = [{"url": f"http://example.org/{number}", "name": name} for number, name in enumerate(NAMES)]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    items = list(open_collection(manifest, columns=ManifestColumns(key="name")))
    named = [item for item in items if not item.problem]
    # A name that is another's, or none, is told; no other is lost.
    assert len(items) == len(NAMES)
    assert len(named) > 100
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    require_inside(store_all(named, out), out, before)


def test_no_name_of_a_file_or_folder_leads_out_of_the_destination(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "photos"
    for name in NAMES:
        short = name.replace("/", "\\").replace("\0", "_")[:60].strip("/")
        if short in {"", ".", ".."} or short.startswith("."):
            continue
        try:
            (folder / f"{short} d").mkdir(parents=True, exist_ok=True)
            (folder / f"{short}.jpg").touch()
            (folder / f"{short} d" / f"{short}.png").touch()
        except (OSError, UnicodeError):
            continue
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    items = list(open_collection(folder))
    assert len(items) > 150
    require_inside(store_all(items, out), out, before)


@pytest.mark.parametrize("url", [f"http://example.org/{name}" for name in NAMES if "\ud800" not in name])
def test_no_url_leads_out_of_the_destination(tmp_path: Path, out: Path, url: str) -> None:
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    require_inside(store_all(open_collection([url]), out), out, before)


# Links


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Make a folder with every kind of link, and a secret beside it."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.jpg").write_bytes(b"secret")
    (tmp_path / "photos-and-more").mkdir()
    (tmp_path / "photos-and-more" / "key.jpg").write_bytes(b"secret")
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    (photos / "good.jpg").write_bytes(b"good")
    for name, target in {
        "inside.jpg": "good.jpg",
        "sub/up.jpg": "../good.jpg",
        "absolute.jpg": str(photos / "good.jpg"),
        "twice.jpg": "inside.jpg",
        "out.jpg": "../secret/key.jpg",
        "passwd.jpg": "/etc/passwd",
        "out-twice.jpg": "out.jpg",
        "prefix.jpg": "../photos-and-more/key.jpg",
        "around.jpg": "../photos/../secret/key.jpg",
        "zero.jpg": "/dev/zero",
        "self.jpg": "self.jpg",
        "gone.jpg": "nowhere.jpg",
        "folder": "../secret",
        "loop": ".",
        "root": "/",
    }.items():
        (photos / name).symlink_to(target)
    return photos


OUTSIDE = {"out", "passwd", "out-twice", "prefix", "around"}


def read(collection: Collection, policy: FetchPolicy) -> dict[str, Fetched | Unchanged | Unfetched]:
    async def main() -> dict[str, Fetched | Unchanged | Unfetched]:
        fetcher = Fetcher(policy)
        try:
            return {item.key: await fetcher.try_fetch(item.url) for item in collection}
        finally:
            await fetcher.aclose()

    return asyncio.run(main())


@pytest.mark.parametrize("pattern", ["", "/*.jpg", "/**/*.jpg"])
def test_a_link_that_leads_out_of_a_folder_fails_for_itself(photos: Path, pattern: str) -> None:
    """And those inside are followed; by a link, no folder is entered and no device read."""
    collection = open_collection(f"{photos}{pattern}")
    answers = read(collection, FetchPolicy(within=folder_of(collection)))
    refused = {key for key, each in answers.items() if isinstance(each, Unfetched) and type(each.error) is LinkError}
    assert refused == OUTSIDE
    good = {key for key, each in answers.items() if isinstance(each, Fetched) and each.data == b"good"}
    assert good == {"good", "inside", "absolute", "twice"} | ({"sub/up"} if pattern != "/*.jpg" else set())
    assert {*answers} - refused - good == {"self", "gone"}
    assert "--follow-links" in str(answers["out"].error)  # type: ignore[union-attr]


def test_links_are_followed_for_who_says_so(photos: Path) -> None:
    collection = open_collection(photos)
    answers = read(collection, FetchPolicy(within=None))
    assert {key for key, each in answers.items() if isinstance(each, Fetched) and each.data == b"secret"} == {
        "out",
        "out-twice",
        "prefix",
        "around",
    }


def test_a_link_that_is_turned_after_it_was_listed_is_looked_at_when_it_is_read(photos: Path) -> None:
    collection = open_collection(photos)
    items = list(collection)
    (photos / "good.jpg").unlink()
    (photos / "good.jpg").symlink_to("../secret/key.jpg")
    (photos / "sub" / "up.jpg").unlink()
    (photos / "sub").rmdir()
    (photos / "sub").symlink_to("../secret")
    (photos.parent / "secret" / "up.jpg").write_bytes(b"secret")

    class Listed:
        name = looks_for = ""

        def __iter__(self):
            return iter(items)

    answers = read(Listed(), FetchPolicy(within=folder_of(collection)))
    assert not [key for key, each in answers.items() if isinstance(each, Fetched)]


def test_a_folder_that_is_a_link_itself_is_the_users_word(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(photos)
    collection = open_collection(tmp_path / "linked")
    answers = read(collection, FetchPolicy(within=folder_of(collection)))
    assert isinstance(answers["good"], Fetched)
    assert isinstance(answers["out"], Unfetched)


@pytest.mark.parametrize("collection", ["photos/out.jpg", ["photos/out.jpg"], "list.txt"])
def test_what_the_user_names_himself_may_be_a_link(
    photos: Path, monkeypatch: pytest.MonkeyPatch, collection: str | list[str]
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("list.txt").write_text("photos/out.jpg\n../../../../../../../../etc/passwd\n")
    assert folder_of(open_collection(collection)) is None


def test_a_link_under_the_name_of_a_result_is_replaced_and_not_followed(tmp_path: Path, out: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (out / "a.jpg").symlink_to(victim)
    ledger = Ledger(str(out), "job")
    (out / "_ledger" / "job" / "_note").symlink_to(victim)
    (output,) = store_all([Item("a", "")], out)
    ledger.save("note", "text")
    assert victim.read_bytes() == b"mine"
    assert not Path(output).is_symlink()
    assert (out / "_ledger" / "job" / "_note").read_text() == "text"


# Manifests from elsewhere


@pytest.mark.parametrize(
    "written",
    ["/etc/passwd", "file:///etc/passwd", "FILE:///etc/passwd", "local:///etc/passwd", "file:/etc/passwd"],
)
def test_a_manifest_in_an_object_store_names_no_files_of_this_machine(written: str) -> None:
    MemoryFileSystem().pipe("/hostile/list.txt", f"{written}\n../../../etc/passwd\ncat.jpg\n".encode())
    items = list(open_collection("memory://hostile/list.txt"))
    for item in items:
        assert item.problem or item.url.startswith("memory://hostile/"), item
    assert items[-1].url == "memory://hostile/cat.jpg"
    if written != "file:/etc/passwd":
        assert "a manifest from an object store names no files of this machine" in items[0].problem


def test_a_list_of_local_images_is_the_users_own_wherever_it_is_kept(tmp_path: Path) -> None:
    """And what a stranger adds to it, in a bucket that both may write to, is not."""
    seal = Seal(tmp_path)
    place = os.fspath(tmp_path / "a.jpg")
    job = keep_list([place, "https://example.org/b.jpg"], Job("1", "a list", "memory://hostile/out"), seal)
    MemoryFileSystem().pipe(
        job.collection, MemoryFileSystem().cat(job.collection) + b'"/etc/passwd"\n"file:///etc/passwd"\n'
    )
    items = list(open_collection(job.collection, unseal=lambda text: seal.open(text, list_purpose("1"))))
    assert [item.url for item in items] == [place, "https://example.org/b.jpg", "", ""]
    assert all("names no files of this machine" in item.problem for item in items[2:])
