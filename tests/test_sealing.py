"""What is sealed is opened with the same key, for the same purpose, and with no other."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from redis import Redis

from pipeline.domain import Failure, Item, Job, ManifestColumns, Outcome
from pipeline.errors import JobConflictError, SealError
from pipeline.kept_list import keep_list
from pipeline.runner.earlier import EarlierJobs
from pipeline.runner.ledger import Ledger
from pipeline.runner.rows import outcome_row
from pipeline.sealing import KEY_FILE, Seal, is_sealed, list_purpose, seal_url
from pipeline.settings import Settings
from pipeline.sources import key_for_url, open_collection
from pipeline.state import JobStore
from pipeline.state.connection import open_redis

SIGNED = "https://user:pass@example.org/a.jpg?sig=s3cret&\u00e9=1"
SHOWN = "https://example.org/a.jpg?\u2026"


@pytest.fixture
def seal(tmp_path: Path) -> Seal:
    return Seal(tmp_path / "data")


@pytest.fixture
def other_seal(tmp_path: Path) -> Seal:
    return Seal(tmp_path / "elsewhere")


@pytest.mark.parametrize("text", ["", "a", SIGNED, "a\0b", "\ud800"])
def test_what_is_sealed_is_opened_by_another_process_of_the_user(tmp_path: Path, text: str) -> None:
    sealed = Seal(tmp_path).seal(text, "this")
    assert is_sealed(sealed)
    assert "s3cret" not in sealed
    assert sealed.isascii()
    assert Seal(tmp_path).open(sealed, "this") == text


def test_what_is_sealed_twice_looks_different(seal: Seal) -> None:
    """Nobody sees that two URLs are the same."""
    assert seal.seal(SIGNED, "this") != seal.seal(SIGNED, "this")


def test_another_key_another_purpose_and_a_forgery_open_nothing(seal: Seal, other_seal: Seal) -> None:
    sealed = seal.seal(SIGNED, "this")
    forged = sealed[:-9] + ("A" if sealed[-9] != "A" else "B") + sealed[-8:]
    for attempt in (
        lambda: other_seal.open(sealed, "this"),
        lambda: seal.open(sealed, "that"),
        lambda: seal.open(forged, "this"),
        lambda: seal.open("sealed:", "this"),
        lambda: seal.open(SIGNED, "this"),
    ):
        with pytest.raises(SealError, match="sealed with another key; set PIPELINE_SECRET to the same text on every"):
            attempt()


def test_a_secret_of_the_environment_opens_on_every_machine(tmp_path: Path) -> None:
    here, there = Settings.from_environ({"PIPELINE_SECRET": "four words of mine"}), "four words of mine"
    assert "four words" not in repr(here)
    sealed = Seal(tmp_path / "here", here.secret).seal(SIGNED, "this")
    assert Seal(tmp_path / "there", there).open(sealed, "this") == SIGNED
    assert not (tmp_path / "here").exists(), "no key is made that is not needed"
    with pytest.raises(SealError):
        Seal(tmp_path / "there", "four words of thine").open(sealed, "this")


def test_the_key_is_only_its_owners_to_read(tmp_path: Path) -> None:
    Seal(tmp_path / "data").seal("a", "this")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data" / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == [KEY_FILE]


def test_processes_that_start_at_once_make_one_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.sealing import Seal; from cryptography import fernet\n"
        "print('ready', flush=True); sys.stdin.readline(); print(Seal(Path(sys.argv[1])).seal('a', 'this'))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    sealed = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [Seal(tmp_path / "data").open(each, "this") for each in sealed] == ["a"] * 6


@pytest.mark.parametrize("content", [b"", b"no key", b"\xff" * 44])
def test_a_key_that_is_none_is_not_used(tmp_path: Path, content: bytes) -> None:
    """Else what is sealed with it would be anybody's to open, or nobody's."""
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(SealError, match="cannot use the key in"):
        Seal(tmp_path).seal("a", "this")


# Ledgers


NIGHTLY = Job("nightly", "photos", "out")
IN_STORE = Job("nightly", "photos", "memory://sealing/out")


def failed(url: str, seal: Seal | None, key: str = "a", job: Job = NIGHTLY) -> Outcome:
    item = Item(key, url)
    error = Failure("fetch", "ServerError", f"cannot fetch {url!r}: ConnectError: {url} is broken")
    return Outcome(seal_url(item, job, seal) if seal else item, "failed", failure=error)


def test_a_ledger_shows_no_secret_and_gives_the_url_back_to_who_has_the_key(
    tmp_path: Path, seal: Seal, other_seal: Seal
) -> None:
    ledger = Ledger(str(tmp_path / "out"), "nightly")
    ledger.append([failed(SIGNED, seal), failed("/photos/b?.jpg", seal, "b")], "f00d")
    rows = ledger.read().to_pylist()
    assert [row["url"] for row in rows] == [SHOWN, "/photos/b?.jpg"]
    assert [row["sealed_url"] == "" for row in rows] == [False, True]
    assert "s3cret" not in str(rows)
    assert "user:pass" not in str(rows)
    assert [item.url for item in ledger.failed_items(seal)] == [SIGNED, "/photos/b?.jpg"]
    with pytest.raises(SealError):
        ledger.failed_items(other_seal)


def test_a_ledger_of_an_earlier_release_is_read(tmp_path: Path, seal: Seal) -> None:
    ledger = Ledger(str(tmp_path / "out"), "nightly")
    ledger.append([failed(SHOWN, None)], "f00d")
    (part,) = (tmp_path / "out").rglob("*.parquet")
    table = pq.read_table(part).drop_columns(["sealed_url"])
    pq.write_table(table.set_column(table.column_names.index("url"), "url", [[SIGNED]]), part)
    assert [item.url for item in ledger.failed_items(seal)] == [SIGNED]
    ledger.append([failed(SIGNED, seal)], "f00d")
    assert len(ledger.read()) == 1


@pytest.fixture
def shared_ledger() -> Iterator[Ledger]:
    """Give a ledger in a store, where others may write too."""
    yield Ledger(IN_STORE.destination, IN_STORE.id)
    fsspec.filesystem("memory").rm("/sealing", recursive=True)


@pytest.mark.parametrize(
    "url", ["/home/me/x.png", "file:///home/me/x.png", "simplecache::file:///home/me/x.png", "s3://b/x::file:///x.png"]
)
def test_whoever_writes_into_a_ledger_in_a_store_names_no_file_of_who_retries(
    shared_ledger: Ledger, seal: Seal, url: str
) -> None:
    """What is on the retrier's own machine is read on his own word alone; the row fails by itself, others go on."""
    shared_ledger.append([failed(url, None), failed("s3://b/b.jpg", None, "b"), failed(SHOWN, None, "c")], "f00d")
    forged, object_of_store, on_web = shared_ledger.failed_items(seal)
    assert (forged.key, forged.url) == ("a", "")
    assert "has no seal that shows that this job has written it" in forged.problem
    assert (object_of_store.url, object_of_store.problem) == ("s3://b/b.jpg", "")
    assert (on_web.url, on_web.problem) == (SHOWN, "")


@pytest.mark.parametrize("url", ["/photos/b?.jpg", "file:///photos/b.jpg"])
def test_a_job_retries_its_own_paths_though_its_ledger_is_in_a_store(
    shared_ledger: Ledger, seal: Seal, url: str
) -> None:
    shared_ledger.append([failed(url, seal, job=IN_STORE)], "f00d")
    (item,) = shared_ledger.failed_items(seal)
    assert (item.url, item.problem) == (url, "")


def test_what_is_sealed_for_one_job_opens_in_no_other_jobs_ledger(tmp_path: Path, seal: Seal) -> None:
    """Else whoever copies a row would have another job fetch, and store where he can read it, what he must not see."""
    ledger = Ledger(str(tmp_path / "out"), "mine")
    ledger.append([failed(SIGNED, seal, job=NIGHTLY)], "f00d")
    with pytest.raises(SealError, match="the URL of an image of job 'mine'"):
        ledger.failed_items(seal)


def test_a_job_from_paths_to_a_store_runs_without_a_key(tmp_path: Path) -> None:
    """Only its retry needs one; and of what is stored, nothing is sealed that shows no secret."""
    (tmp_path / "no-folder").write_text("")
    item = Item("a", "/photos/a.jpg")
    assert seal_url(item, IN_STORE, Seal(tmp_path / "no-folder")) == item
    sealed = seal_url(item, IN_STORE, Seal(tmp_path / "data"))
    assert is_sealed(sealed.sealed_url)
    assert outcome_row(Outcome(sealed, "stored"), "f00d")["sealed_url"] == ""


def test_an_earlier_job_tells_where_its_images_came_from(tmp_path: Path, seal: Seal, other_seal: Seal) -> None:
    """The URL as it is shown would be the same with another query, which may be another image."""
    out = str(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jpg").write_bytes(b"x")
    job = Job("second", str(tmp_path), out)
    stored = Outcome(
        seal_url(Item("a", SIGNED), replace(job, id="first"), seal), "stored", output=f"{out}/a.jpg", bytes_out=1
    )
    Ledger(out, "first").append([stored], job.recipe.fingerprint)

    def found(opener: Seal) -> str:
        with EarlierJobs(job, "", seal=opener) as earlier:
            earlier.read()
            image = earlier.find(Item("a", SIGNED))
            assert image
            return image.url

    assert found(seal) == SIGNED
    assert found(other_seal) == ""


# Lists


def test_a_list_is_read_by_its_own_job_and_keys_are_those_of_the_urls(tmp_path: Path, seal: Seal) -> None:
    job = keep_list([SIGNED, "https://example.org/b.jpg"], Job("1", "a list", str(tmp_path / "out")), seal)
    assert "s3cret" not in Path(job.collection).read_text()
    again = keep_list([SIGNED, "https://example.org/b.jpg"], job, seal)
    assert again == job, "the same list is the same collection"

    def items(job_id: str) -> list[Item]:
        return list(open_collection(job.collection, unseal=lambda text: seal.open(text, list_purpose(job_id))))

    assert [(item.key, item.url) for item in items("1")] == [
        (key_for_url(SIGNED), SIGNED),
        (key_for_url("https://example.org/b.jpg"), "https://example.org/b.jpg"),
    ]
    with pytest.raises(SealError):
        items("2")


def test_whoever_points_at_a_kept_list_gets_no_sealed_url_opened(tmp_path: Path, seal: Seal) -> None:
    job = keep_list([SIGNED], Job("1", "a list", str(tmp_path / "out")), seal)
    (item,) = open_collection(job.collection)
    assert item.url == ""
    assert "a sealed URL is opened by no job but the one that has kept it" in item.problem


# Manifests


def test_no_key_column_and_no_carried_column_shows_a_secret(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"url,name\n{SIGNED},{SIGNED}\n{SIGNED}2,{SIGNED}\n")
    first, second = open_collection(str(manifest), columns=ManifestColumns(key="name", carry=("url", "name")))
    assert first.key == key_for_url(SIGNED)
    assert dict(first.extra)["url"] == SHOWN
    assert "another image above has" in second.problem
    assert "s3cret" not in first.key + repr(first) + second.problem + second.key


@pytest.mark.parametrize("written", [f" {SIGNED} ", f"{SIGNED}\t", f"\u00a0{SIGNED}"])
def test_no_carried_column_shows_a_secret_for_the_spaces_around_it(tmp_path: Path, written: str) -> None:
    """A URL is read without the spaces around it; the same column, carried into the ledger, has them."""
    manifest = tmp_path / "list.jsonl"
    manifest.write_text(json.dumps({"url": written}))
    (item,) = open_collection(str(manifest), columns=ManifestColumns(carry=("url",)))
    assert item.url == SIGNED
    assert dict(item.extra)["url"] == SHOWN


def test_no_carried_column_shows_a_secret_for_what_cannot_be_written(tmp_path: Path) -> None:
    """What JSON may hold and UTF-8 may not is replaced in the ledger, and is the same URL nevertheless."""
    manifest = tmp_path / "list.jsonl"
    manifest.write_text(json.dumps({"url": f"{SIGNED}\ud800"}))
    (item,) = open_collection(str(manifest), columns=ManifestColumns(carry=("url",)))
    assert dict(item.extra)["url"] == SHOWN


def test_neither_an_item_nor_a_job_shows_its_secret() -> None:
    """Dask logs what a task that failed was given."""
    shown = repr([Item("a", SIGNED, extra=(("b", SIGNED),), sealed_url="x"), Job("1", SIGNED, "out")])
    assert shown == f"[Item('a', {SHOWN!r}), Job('1', {SHOWN!r}, 'out')]"


# Redis


def test_redis_has_no_secret_and_a_job_is_loaded_whole(store: JobStore, redis: Redis) -> None:
    job = Job("1", SIGNED, "out")
    store.create(job)
    assert "s3cret" not in json.dumps(redis.hgetall("job:1"))
    assert store.load_job("1") == job
    store.create(job)
    with pytest.raises(JobConflictError, match="another collection"):
        store.create(Job("1", SIGNED + "2", "out"))


def test_a_job_that_was_sealed_with_another_key_is_listed_but_not_run(
    store: JobStore, store_url: str, tmp_path: Path
) -> None:
    job = Job("1", SIGNED, "out")
    store.create(job)
    with open_redis(store_url) as connection:
        elsewhere = JobStore(connection, store_url, lambda: None, Seal(tmp_path, "another"))
        ((found, _),) = elsewhere.jobs()
        assert "s3cret" not in found.collection
        with pytest.raises(SealError, match="cannot open the collection of job '1'"):
            elsewhere.create(job)
