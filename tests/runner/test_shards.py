"""Output as WebDataset shards: every image in exactly one, whatever happens on the way."""

from __future__ import annotations

import hashlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from redis import Redis

import pipeline
from pipeline.domain import Item, Job, Outcome, Progress, Recipe
from pipeline.errors import ClusterError, JobConflictError, LeaseLostError, StoreError
from pipeline.runner import cluster, shards
from pipeline.runner.cluster import open_client
from pipeline.runner.ledger import Ledger
from pipeline.runner.pieces import Piece, PieceFolder
from pipeline.runner.rows import outcome_row
from pipeline.runner.sharded import ShardEquipment
from pipeline.runner.shards import ShardBuffer
from pipeline.runner.tasks import EquipWorker
from pipeline.runner.tenure import Tenure
from pipeline.stages.sample import make_sample, member_stem, member_url
from pipeline.state import JobStore
from tests.fixtures.cluster import DaskCommands
from tests.fixtures.photographs import make_photograph
from tests.fixtures.s3 import S3
from tests.fixtures.web import Reply, Web
from tests.interfaces.commands import wait_until
from tests.runner.shards import assert_each_once, assert_none_twice, read_by_webdataset, read_shard, read_shards

SMALL = Recipe(max_width=100, max_height=100, enhance=None)
SHARD_BYTES = 40_000


@pytest.fixture(autouse=True)
def redis_url(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REDIS_URL", valkey_url)
    return valkey_url


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a dozen images fill a shard."""
    monkeypatch.setattr(shards, "SHARD_BYTES", SHARD_BYTES)


def slow_urls(web: Web, count: int, delay_s: float = 0.1) -> list[str]:
    return [web.reply(f"/{number}.jpg", Reply(make_photograph(number % 5), delay_s=delay_s)) for number in range(count)]


def keys_of(job: pipeline.JobHandle) -> set[str]:
    return set(job.outcomes()["key"])


# WebDataset leaves closing the files to the garbage collection.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_every_image_is_in_one_shard_with_what_is_known_of_it(web: Web, tmp_path: Path, client: Client) -> None:
    names = [f"v1.{number}" if number % 2 else f"a.b/{number} é" for number in range(60)]
    urls = [f"{web.serve(f'/{number}.jpg', make_photograph(number))}?sig=secret" for number in range(60)]
    rows = [f"{url},{name},caption {number}" for number, (url, name) in enumerate(zip(urls, names, strict=True))]
    (tmp_path / "list.csv").write_text("\n".join(["url,name,caption", *rows]))
    out = tmp_path / "out"
    columns: dict[str, Any] = {"key_column": "name", "carry_columns": ["caption"]}
    recipe = Recipe(max_width=100, max_height=100, enhance=None, format="webp")
    job = pipeline.run(
        tmp_path / "list.csv", out, recipe, output="webdataset", client=client, allow_private=True, **columns
    )
    assert (job.wait().status, job.progress.stored) == ("completed", 60)
    assert_each_once(out, job.id, set(names))
    samples = {sample["json"]["caption"]: sample for sample in read_by_webdataset(out)}
    outcomes = job.outcomes().set_index("caption")
    assert len(samples) == 60
    for caption, sample in samples.items():
        row = outcomes.loc[caption]
        assert sample["webp"].size == (100, 75)
        assert sample["json"] == {
            "key": row["key"],
            "url": row["url"].replace("sig=secret", "…"),
            "width": 100,
            "height": 75,
            "sha256": row["sha256"],
            "recipe": recipe.fingerprint,
            "model": "",
            "caption": caption,
        }
    sizes = [path.stat().st_size for path in out.glob("*.tar")]
    assert len(sizes) >= 4
    assert sum(sizes) / len(sizes) > SHARD_BYTES / 3


def test_a_failed_image_is_in_no_shard_and_a_retry_adds_only_what_failed(
    web: Web, tmp_path: Path, client: Client
) -> None:
    good = make_photograph(1)
    late = [web.reply(f"/late-{number}.jpg", Reply(status=404), Reply(good)) for number in range(3)]
    urls = [*(web.serve(f"/{number}.jpg", good) for number in range(9)), *late, web.serve("/text.jpg", b"text")]
    job = pipeline.run(urls, tmp_path, SMALL, output="webdataset", client=client, allow_private=True, retries=0)
    assert (job.wait().stored, job.progress.failed) == (9, 4)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.tar")}
    assert len(read_shards(tmp_path)) == 9
    job.retry_failed(client=client)
    assert (job.wait().stored, job.progress.failed) == (12, 1)
    assert {path: path.read_bytes() for path in before} == before
    outcomes = job.outcomes()
    assert_each_once(tmp_path, job.id, set(outcomes[outcomes["status"] == "stored"]["key"]))


def test_a_cancelled_run_leaves_shards_and_a_resumed_one_adds_to_them(web: Web, tmp_path: Path, client: Client) -> None:
    job = pipeline.run(slow_urls(web, 300), tmp_path, SMALL, output="webdataset", client=client, allow_private=True)
    for progress in job.updates():
        if progress.stored:
            break
    job.cancel()
    cancelled = job.wait()
    assert (cancelled.status, 0 < cancelled.stored < 300) == ("cancelled", True)
    assert_each_once(tmp_path, job.id, keys_of(job))
    assert len(keys_of(job)) == cancelled.stored
    resumed = pipeline.attach(job.id)
    resumed.resume(client=client)
    assert (resumed.wait().status, resumed.progress.stored) == ("completed", 300)
    assert len(keys_of(job)) == 300
    assert_each_once(tmp_path, job.id, keys_of(job))


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_image(web: Web, tmp_path: Path) -> None:
    with open_client(None, workers=2) as client:
        job = pipeline.run(slow_urls(web, 200), tmp_path, SMALL, output="webdataset", client=client, allow_private=True)
        nannies = client.cluster.workers.values()
        for killed in range(3):
            wait_until(lambda killed=killed: len(list(tmp_path.glob("*.tar"))) > killed, "one more shard", 60)
            wait_until(lambda: all(nanny.pid for nanny in nannies), "all workers", 60)
            pid = next(iter(nannies)).pid
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: pid not in {nanny.pid for nanny in nannies}, "a worker's end", 60)
        assert (job.wait().status, job.progress.stored) == ("completed", 200)
    assert len(keys_of(job)) == 200
    assert_each_once(tmp_path, job.id, keys_of(job))


def test_a_gallery_shows_what_is_in_shards(photographs: Path, tmp_path: Path, client: Client) -> None:
    job = pipeline.run(photographs / "spring", tmp_path, SMALL, output="webdataset", client=client)
    job.wait()
    gallery = job.gallery(5)
    assert (len(gallery.tiles), gallery.stored) == (5, 20)
    assert len(job.tail(3).read().outputs) == 3


def test_a_job_of_one_image_says_in_which_shard_it_is(photographs: Path, tmp_path: Path, client: Client) -> None:
    job = pipeline.run(photographs / "spring" / "00.jpg", tmp_path, SMALL, output="webdataset", client=client)
    result = job.wait().result
    assert result is not None
    assert result.url == job.outcomes()["output"][0]
    assert result.url.endswith(f"::{tmp_path / job.id}-000000.tar")


def test_another_output_is_another_job(photographs: Path, tmp_path: Path, client: Client) -> None:
    pipeline.run(photographs, tmp_path, SMALL, client=client, job_id="nightly").wait()
    with pytest.raises(JobConflictError, match="another output"):
        pipeline.run(photographs, tmp_path, SMALL, output="webdataset", client=client, job_id="nightly")


def test_shards_in_an_object_store_appear_whole(photographs: Path, client: Client, s3: S3) -> None:
    place = f"{s3.bucket}/sets/a"
    job = pipeline.run(photographs, place, SMALL, output="webdataset", client=client, storage_options=s3.options)
    assert (job.wait().status, job.progress.error, job.progress.stored) == ("completed", "", 40)
    tars = [key for key in s3.object_keys() if "_ledger" not in key]
    assert tars == [f"sets/a/{job.id}-{number:06}.tar" for number in range(len(tars))]
    assert len(tars) > 1
    told = [told for key in tars for told in read_shard(s3.fs.cat_file(f"{s3.bucket}/{key}"), f"{s3.bucket}/{key}")]
    place_by_key = {each.about["key"]: f"tar://{each.member}::{each.shard}" for each in told}
    assert len(told) == len(place_by_key) == 40
    assert place_by_key == job.outcomes().set_index("key")["output"].to_dict()


IMAGE = make_photograph(1, 40, 30)
ABOUT = {"width": 40, "height": 30, "sha256": hashlib.sha256(IMAGE).hexdigest()}


class Bench:
    """A buffer, and pieces as workers would have written them."""

    def __init__(self, folder: Path, client: Client, tenure: Tenure | None = None) -> None:
        self.job = Job("nightly", "photos", str(folder), SMALL)
        self.ledger = Ledger(self.job.destination, self.job.id)
        self.folder = PieceFolder(self.job)
        self.folder.make()
        self.buffer = ShardBuffer(self.job, self.ledger, uuid.uuid4().hex, tenure=tenure)
        self.buffer.connect(client)

    def write(self, *keys: str) -> list[Outcome]:
        """Write a piece; return the Outcomes that a worker would give."""
        outcomes, samples = [], []
        for key in keys:
            stem = member_stem(key)
            outcomes.append(Outcome(Item(key, f"https://example.org/{key}"), "stored", f"{stem}.jpg"))
            samples.append(make_sample(stem, ".jpg", IMAGE, {"key": key, **ABOUT}, 0))
        rows = [outcome_row(outcome, "f00d") for outcome in outcomes]
        piece = self.folder.write(samples, rows)
        return [Outcome(each.item, "stored", member_url(each.output, piece.name), finished_at=0.0) for each in outcomes]


def test_what_a_killed_run_has_left_is_brought_into_order(tmp_path: Path, client: Client) -> None:
    """Pieces become a shard, those that were done again only once; a shard that the ledger does not name goes."""
    bench = Bench(tmp_path, client)
    bench.write("a", "b")
    bench.buffer.recover(0.0)
    bench.write("b", "c")
    bench.write("d", "e")
    bench.write("e")
    (tmp_path / "nightly-000004.tar").write_bytes(b"of a run that was killed before its ledger knew")
    (tmp_path / "nightly-batch-000007.tar").write_bytes(b"of another job")
    (tmp_path / "_shards" / "nightly" / "0123.packed").write_bytes(b"half a shard")
    again = Bench(tmp_path, client)
    again.buffer.recover(0.0)
    (tmp_path / "nightly-batch-000007.tar").unlink()
    again.buffer.close()
    # Of the two pieces with e, the one that is met first is taken, and d is not in both.
    found = {told.about["key"] for told in read_shards(tmp_path)}
    assert found in ({"a", "b", "d", "e"}, {"a", "b", "e"})
    assert_each_once(tmp_path, "nightly", found)


def test_a_driver_that_has_lost_its_lease_puts_no_shard_in_place(
    tmp_path: Path, client: Client, store: JobStore, redis: Redis
) -> None:
    """Even if it believes that it holds it still: it asks before each move."""
    job = Job("nightly", "photos", str(tmp_path), SMALL)
    store.create(job)
    tenure = Tenure(store.acquire(job), lambda: Progress(job.id, "processing"))
    bench = Bench(tmp_path, client, tenure)
    bench.write("a")
    tenure.confirm()
    redis.delete(f"job:{job.id}:lease")
    with store.acquire(job), pytest.raises(LeaseLostError):
        bench.buffer.recover(0.0)
    assert not list(tmp_path.glob("*.tar"))
    assert len(bench.ledger.read()) == 0
    assert len(bench.folder.pieces()) == 1


def test_a_shard_that_cannot_be_moved_to_its_place_is_not_in_the_ledger(tmp_path: Path, client: Client) -> None:
    bench = Bench(tmp_path, client)
    bench.buffer.recover(0.0)
    bench.write("a")
    again = Bench(tmp_path, client)
    (tmp_path / "nightly-000000.tar" / "occupied").mkdir(parents=True)
    with pytest.raises(StoreError, match="unfinished shards"):
        again.buffer.recover(0.0)
    assert len(again.ledger.read()) == 0
    assert len(again.folder.pieces()) == 1
    (tmp_path / "nightly-000000.tar" / "occupied").rmdir()
    (tmp_path / "nightly-000000.tar").rmdir()
    again.buffer.recover(0.0)
    again.buffer.close()
    assert_each_once(tmp_path, "nightly", {"a"})


def test_a_piece_is_named_by_what_it_holds(tmp_path: Path, client: Client) -> None:
    bench = Bench(tmp_path, client)
    bench.write("a")
    (piece,) = bench.folder.pieces()
    assert Piece.named(piece.name) == piece
    assert [row["key"] for row in bench.folder.rows(piece)] == ["a"]
    assert Piece.named("0123.packed") is None
    assert_none_twice(tmp_path)


@pytest.fixture
def bench(tmp_path: Path, client: Client) -> Iterator[Bench]:
    """Have workers that are equipped for the job."""
    bench = Bench(tmp_path, client)
    bench.buffer.recover(0.0)
    plugin = EquipWorker(bench.job, equipment_type=ShardEquipment)
    client.register_plugin(plugin)
    yield bench
    client.unregister_worker_plugin(plugin.name)


def test_a_shard_has_no_more_images_than_memory_is_to_hold(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_IMAGES", 3)
    for keys in (["a", "b"], ["c"], ["d", "e"], ["f", "g", "h", "i"]):
        bench.buffer.add(bench.write(*keys))
    wait_until(lambda: bench.buffer.advance(0.0, is_last=True), "the shards")
    bench.buffer.close()
    assert_each_once(tmp_path, "nightly", set("abcdefghi"))
    images = [len(read_shard(path.read_bytes(), path.name)) for path in sorted(tmp_path.glob("*.tar"))]
    assert images == [3, 2, 4]


def test_a_shard_that_cannot_be_packed_ends_the_run_and_its_other_pieces_are_kept(
    bench: Bench, tmp_path: Path, client: Client
) -> None:
    bench.buffer.add(bench.write("a"))
    (kept,) = bench.folder.pieces()
    bench.buffer.add(bench.write("b"))
    bench.folder.remove([piece for piece in bench.folder.pieces() if piece != kept])
    with pytest.raises(StoreError, match=r"cannot pack a shard in .*: no such file"):
        wait_until(lambda: bench.buffer.advance(0.0, is_last=True), "the shard")
    assert not list(tmp_path.glob("*.tar"))
    again = Bench(tmp_path, client)
    again.buffer.recover(0.0)
    again.buffer.close()
    assert_each_once(tmp_path, "nightly", {"a"})


@pytest.mark.slow
def test_a_scheduler_that_hangs_holds_no_shard_for_ever(
    tmp_path: Path, dask_commands: DaskCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with a word, and the pieces are there for the next one."""
    monkeypatch.setattr(cluster, "SILENCE_PATIENCE_S", 2.0)
    dask_commands.add_worker()
    out = tmp_path / "out"
    with dask_commands.connect(1) as client:
        bench = Bench(out, client)
        client.register_plugin(EquipWorker(bench.job, equipment_type=ShardEquipment))
        bench.buffer.add(bench.write("a"))
        bench.buffer._close_shard()
        bench.buffer._submit(bench.buffer._closed[0])
        future = bench.buffer._closed[0].future
        assert future is not None
        wait_until(lambda: future.status == "finished", "the packed shard", 60)
        dask_commands.processes[0].send_signal(signal.SIGSTOP)
        with pytest.raises(ClusterError, match="has not answered for 2 seconds"):
            bench.buffer.advance(0.0, is_last=True)
        dask_commands.processes[0].send_signal(signal.SIGCONT)
    assert not list(out.glob("*.tar"))
    assert len(bench.folder.pieces()) == 1
    again = Bench(out, client)
    again.buffer.recover(0.0)
    again.buffer.close()
    assert_each_once(out, "nightly", {"a"})
