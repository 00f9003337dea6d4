"""What is directly in a folder: in pages of S3, and with the same keys however many names there are."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.sources import file_names, open_collection
from pipeline.sources.file_names import FileNames
from pipeline.sources.folder import list_remote
from pipeline.sources.keys import name_files
from tests.fixtures.s3 import S3

names = st.text(st.sampled_from("aAäÄ.-_ß\ud800"), min_size=1, max_size=4).map(lambda stem: f"{stem}.jpg")


@given(st.lists(st.one_of(names, names.map(lambda name: name.replace("jpg", "png"))), unique=True, max_size=30))
def test_names_on_disk_have_the_same_keys_in_the_same_order(given_names: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, FileNames() as files:
        patch.setattr(file_names, "NAMES_IN_MEMORY", 3)
        for start in range(0, len(given_names), 5):
            files.extend((name, f"#{len(name)}") for name in given_names[start : start + 5])
        expected = [(name, key, f"#{len(name)}") for name, key in name_files(sorted(given_names)).items()]
        assert list(files.named()) == expected


def test_names_without_number_take_no_memory() -> None:
    with FileNames() as files:
        tracemalloc.start()
        try:
            for page in range(200):
                files.extend(
                    (f"photograph-{page:03}-{number:03}.jpg", "etag:0123456789abcdef") for number in range(1000)
                )
            assert sum(1 for _ in files.named()) == 200_000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 10e6


def test_a_prefix_is_listed_in_pages(moto: S3) -> None:
    moto.put({f"a/{number:04}.jpg": b"" for number in range(1001)} | {"a/": b"", "a/b/c.jpg": b"", "a//d.jpg": b""})
    pages = list(list_remote(moto.fs, f"{moto.bucket}/a".removeprefix("s3://")))
    assert max(map(len, pages)) <= 1000
    assert sum(map(len, pages)) == 1002
    assert [entry for page in pages for entry in page if entry.is_folder] == [("b", True, "", None)]


def test_a_prefix_is_walked_as_a_folder_is(s3: S3) -> None:
    objects = [
        "b.jpg",
        "B.png",
        "a b+c%20ü.jpg",
        "sub/x.jpg",
        "sub.x/y.JPG",
        "sub/note.txt",
        "out/z.jpg",
        "_ledger/l.jpg",
    ]
    s3.put({f"photos/{name}": b"" for name in objects})
    collection = open_collection(f"{s3.bucket}/photos/", storage_options=s3.options, exclude=f"{s3.bucket}/photos/out")
    items = list(collection)
    assert [item.url.removeprefix(f"{s3.bucket}/photos/") for item in items] == [
        *("B.png", "a b+c%20ü.jpg", "b.jpg", "sub/x.jpg", "sub.x/y.JPG")
    ]
    assert [item.key for item in items[1::2]] == ["a b+c%20ü", "sub/x"]
    assert items[0].key.startswith("B-")
    assert items[2].key.startswith("b-")
    assert list(collection) == items


@pytest.mark.parametrize("glob", ["photos/s*/*.jpg", "photos/**/x.*"])
def test_a_prefix_has_globs(s3: S3, glob: str) -> None:
    s3.put({f"photos/{name}": b"" for name in ("b.jpg", "sub/x.jpg", "tub/y.jpg")})
    items = open_collection(f"{s3.bucket}/{glob}", storage_options=s3.options)
    assert [item.url for item in items] == [f"{s3.bucket}/photos/sub/x.jpg"]


def test_a_whole_bucket_is_a_collection(s3: S3) -> None:
    s3.put({"a.jpg": b"", "b/c.jpg": b""})
    assert [item.key for item in open_collection(s3.bucket, storage_options=s3.options)] == ["a", "b/c"]


def test_a_manifest_in_a_bucket_lists_what_lies_beside_it(s3: S3) -> None:
    s3.put({"lists/all.csv": b"url\nphotos/a.jpg\ns3://elsewhere/b.jpg\n"})
    items = open_collection(f"{s3.bucket}/lists/all.csv", storage_options=s3.options)
    assert [item.url for item in items] == [f"{s3.bucket}/lists/photos/a.jpg", "s3://elsewhere/b.jpg"]


@pytest.mark.parametrize("path", ["", "/photos", "/photos/*.jpg"])
def test_a_bucket_that_is_not_there_is_told(s3: S3, path: str) -> None:
    with pytest.raises(SourceError, match=r"cannot read 's3://.*': (there is no such bucket|no such file or folder)"):
        list(open_collection(f"s3://misspelt-bucket{path}", storage_options=s3.options))


def test_a_prefix_that_is_not_there_is_told(s3: S3) -> None:
    with pytest.raises(SourceError, match=r"no such file or folder"):
        open_collection(f"{s3.bucket}/nothing", storage_options=s3.options)
