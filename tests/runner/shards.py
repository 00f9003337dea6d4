"""What shards hold, read as their users do."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from PIL import Image

from pipeline.stages.sample import END_OF_TAR, split_member_url


@dataclass(frozen=True)
class Told:
    """What a shard says of one image, and where."""

    shard: str
    member: str
    about: dict[str, Any]


def read_shard(data: bytes, name: str) -> list[Told]:
    """Read a whole shard by Python's tarfile; the test fails if any of it is not as it should be."""
    assert data.endswith(END_OF_TAR)
    told = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        for image, about in zip(members[::2], members[1::2], strict=True):
            stored, said = (tar.extractfile(member).read() for member in (image, about))  # type: ignore[union-attr]
            told.append(Told(name, image.name, json.loads(said)))
            assert about.name == f"{image.name.rpartition('.')[0]}.json"
            assert told[-1].about["sha256"] == hashlib.sha256(stored).hexdigest()
            with Image.open(io.BytesIO(stored)) as picture:
                assert picture.size == (told[-1].about["width"], told[-1].about["height"])
    return told


def read_shards(destination: Path) -> list[Told]:
    """Read every shard that somebody who knows nothing of ledgers would find."""
    return [told for path in sorted(destination.rglob("*.tar")) for told in read_shard(path.read_bytes(), str(path))]


def read_by_webdataset(destination: Path) -> list[dict[str, Any]]:
    """Read every shard as a training loop does."""
    shards = sorted(map(str, destination.glob("*.tar")))
    return list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))


def assert_none_twice(destination: Path) -> None:
    """No shard is broken, and no image is in two."""
    counts = Counter(told.about["key"] for told in read_shards(destination))
    assert set(counts.values()) <= {1}


def assert_each_once(destination: Path, job_id: str, keys: set[str]) -> None:
    """Every image is in one shard, which the ledger names; there are no other files."""
    told = read_shards(destination)
    assert sorted(each.about["key"] for each in told) == sorted(keys)
    ledger = pa.concat_tables(map(pq.read_table, (destination / "_ledger" / job_id).glob("*.parquet")))
    stored = [row for row in ledger.to_pylist() if row["status"] == "stored"]
    place_by_key = {row["key"]: split_member_url(row["output"]) for row in stored}
    assert len(stored) == len(place_by_key)
    assert place_by_key == {each.about["key"]: (each.member, each.shard) for each in told}
    numbers = sorted({int(each.shard[-10:-4]) for each in told})
    assert numbers == list(range(len(numbers)))
    files = {path for path in destination.rglob("*") if path.is_file() and "_ledger" not in path.parts}
    assert files == {Path(each.shard) for each in told}
    assert not (destination / "_shards").exists()
