"""Samples of a shard, as tarfile and WebDataset read them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import fsspec
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.sample import END_OF_TAR, make_sample, member_stem, member_url, split_member_url

# What keys may be made of, and what means something in a tar file, in WebDataset or in a URL more often than not.
parts = st.text(st.one_of(st.sampled_from("._%#[]@ &é日_"), st.characters(exclude_categories=["C"])), min_size=1)
keys = st.lists(parts.filter(lambda part: "/" not in part), min_size=1, max_size=3).map("/".join)

ODD_KEYS = [
    "plain",
    "v1.0",
    "v1.1",
    ".hidden",
    "a.folder/b",
    "a.folder/b.c.jpg",
    "v1%2E0",
    "__meta__/inside",
    "__meta__",
    "x#y",
    "[1]*",
    "é/日本 語",
    "long/" + "folder/" * 30 + "n" * 150,
]


def make_shard(keys: list[str]) -> bytes:
    samples = [make_sample(member_stem(key), ".jpg", key.encode(), {"key": key}, 1_700_000_000) for key in keys]
    return b"".join(samples) + END_OF_TAR


@given(st.lists(keys, unique=True, max_size=8))
def test_every_key_is_a_sample_of_its_own_for_webdataset(keys: list[str]) -> None:
    read = webdataset.tariterators.tar_file_iterator(io.BytesIO(make_shard(keys)))
    samples = list(webdataset.tariterators.group_by_keys({**file, "__url__": ""} for file in read))
    assert [json.loads(sample["json"])["key"] for sample in samples] == keys
    assert [sample["jpg"].decode() for sample in samples] == keys


# WebDataset leaves closing the file to the garbage collection.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_a_shard_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes(make_shard(ODD_KEYS))
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False).decode())
    assert [sample["json"]["key"] for sample in samples] == ODD_KEYS
    assert [sample["__key__"] for sample in samples] == list(map(member_stem, ODD_KEYS))


def test_a_shard_is_a_tar_file_of_images_each_with_its_json() -> None:
    with tarfile.open(fileobj=io.BytesIO(make_shard(["a/b", "c.d"]))) as tar:
        assert tar.getnames() == ["a/b.jpg", "a/b.json", "c%2Ed.jpg", "c%2Ed.json"]
        assert {member.mtime for member in tar} == {1_700_000_000}


@pytest.mark.parametrize("key", ODD_KEYS)
def test_fsspec_opens_a_member_by_its_url(key: str, tmp_path: Path) -> None:
    path = tmp_path / "a.shard.tar"
    path.write_bytes(make_shard(ODD_KEYS))
    url = member_url(f"{member_stem(key)}.jpg", str(path))
    assert split_member_url(url) == (f"{member_stem(key)}.jpg", str(path))
    with fsspec.open(url, "rb") as file:
        assert file.read().decode() == key


def test_what_is_no_member_s_url_is_not_split() -> None:
    assert split_member_url("/results/cat.jpg") == split_member_url("s3://b/cat.jpg") == ("", "")
