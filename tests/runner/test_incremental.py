"""A second run over the same collection does what is new or changed, and nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from distributed import Client

import pipeline
from pipeline.domain import Recipe
from pipeline.runner.driver import Driver
from pipeline.runner.ledger import Ledger
from pipeline.sources import open_collection
from pipeline.state import connect
from tests.fixtures.photographs import make_photograph
from tests.fixtures.s3 import S3
from tests.fixtures.web import Reply, Web
from tests.runner.shards import assert_none_twice, read_shards

SMALL = Recipe(max_width=100, max_height=100, enhance=None)


@pytest.fixture(autouse=True)
def redis_url(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REDIS_URL", valkey_url)
    return valkey_url


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(make_photograph(number))
        (folder / "sub" / f"{number}.jpg").write_bytes(make_photograph(10 + number))
    return folder


def run(collection, destination, client: Client, recipe: Recipe = SMALL, **options) -> pipeline.JobHandle:
    job = pipeline.run(collection, destination, recipe, client=client, **options)
    progress = job.wait()
    assert progress.status == "completed", progress.error
    return job


def counts(job: pipeline.JobHandle) -> tuple[int, int, int]:
    return job.progress.stored, job.progress.skipped, job.progress.failed


def by_key(job: pipeline.JobHandle):
    return job.outcomes().set_index("key").sort_index()


def test_an_unchanged_folder_is_skipped_and_its_ledger_still_tells_of_every_image(
    photos: Path, tmp_path: Path, client: Client
) -> None:
    first = run(photos, tmp_path / "out", client)
    second = run(photos, tmp_path / "out", client)
    assert (counts(first), counts(second)) == ((12, 0, 0), (0, 12, 0))
    assert second.progress.bytes_in == second.progress.bytes_out == 0
    described = ["url", "output", "width", "height", "channels", "bytes_out", "sha256", "fingerprint", "source_sha256"]
    assert by_key(second)[described].equals(by_key(first)[described])
    assert set(second.outcomes()["status"]) == {"skipped"}


def test_a_night_without_anything_new_needs_no_cluster(photos: Path, tmp_path: Path, client: Client) -> None:
    first = run(photos, tmp_path / "out", client)
    job = pipeline.Job("second", first.job.collection, first.job.destination, SMALL)

    @contextmanager
    def no_cluster() -> Iterator[Client]:
        raise AssertionError("a cluster was asked for")
        yield client

    with connect(os.environ["REDIS_URL"], tmp_path) as store:
        before = store.create(job)
        Driver(job, open_collection(photos), store.acquire(job), before, no_cluster).run()
        progress = store.progress("second")
    assert (progress.status, progress.skipped, progress.done_by_stage) == (
        "completed",
        12,
        {"fetch": 12, "resize": 12, "store": 12},
    )


def test_what_is_new_changed_or_gone_is_made_and_nothing_else(photos: Path, tmp_path: Path, client: Client) -> None:
    run(photos, tmp_path / "out", client)
    (photos / "new.jpg").write_bytes(make_photograph(100))
    (photos / "1.jpg").write_bytes(make_photograph(101))
    (photos / "2.jpg").unlink()
    (tmp_path / "out" / "3.jpg").unlink()
    (tmp_path / "out" / "4.jpg").write_bytes(b"cut off")
    second = run(photos, tmp_path / "out", client)
    assert counts(second) == (4, 8, 0)
    outcomes = by_key(second)
    assert set(outcomes.index[outcomes["status"] == "stored"]) == {"new", "1", "3", "4"}
    assert "2" not in outcomes.index
    for _, row in outcomes.iterrows():
        assert Path(row["output"]).stat().st_size == row["bytes_out"]


def test_a_file_that_was_only_touched_is_read_but_not_made_again(photos: Path, tmp_path: Path, client: Client) -> None:
    run(photos, tmp_path / "out", client)
    os.utime(photos / "1.jpg")
    second = run(photos, tmp_path / "out", client)
    assert counts(second) == (0, 12, 0)
    assert second.progress.bytes_in == (photos / "1.jpg").stat().st_size
    # It is known from now on.
    assert run(photos, tmp_path / "out", client).progress.bytes_in == 0


def test_another_recipe_or_force_makes_everything_again(photos: Path, tmp_path: Path, client: Client) -> None:
    run(photos, tmp_path / "out", client)
    smaller = Recipe(max_width=50, max_height=50, enhance=None)
    assert counts(run(photos, tmp_path / "out", client, smaller)) == (12, 0, 0)
    # The files of the first run were written over.
    assert counts(run(photos, tmp_path / "out", client)) == (12, 0, 0)
    assert counts(run(photos, tmp_path / "out", client, force=True)) == (12, 0, 0)
    assert counts(run(photos, tmp_path / "out", client)) == (0, 12, 0)


def test_recipes_whose_results_have_other_names_do_not_disturb_each_other(
    photos: Path, tmp_path: Path, client: Client
) -> None:
    png = Recipe(max_width=50, max_height=50, enhance=None, format="png")
    run(photos, tmp_path / "out", client)
    run(photos, tmp_path / "out", client, png)
    assert counts(run(photos, tmp_path / "out", client)) == (0, 12, 0)
    assert counts(run(photos, tmp_path / "out", client, png)) == (0, 12, 0)


def test_a_failed_image_is_tried_by_the_next_run(photos: Path, tmp_path: Path, client: Client) -> None:
    (photos / "1.jpg").write_bytes(b"no image")
    assert counts(run(photos, tmp_path / "out", client)) == (11, 0, 1)
    assert counts(run(photos, tmp_path / "out", client)) == (0, 11, 1)
    (photos / "1.jpg").write_bytes(make_photograph(1))
    assert counts(run(photos, tmp_path / "out", client)) == (1, 11, 0)


def test_only_the_ledger_of_the_last_night_is_read(
    photos: Path, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    tables = Ledger.tables

    def reading(self: Ledger, *args, **options):
        read.append(Path(self.folder).name)
        return tables(self, *args, **options)

    for night in ("night-1", "night-2", "night-3"):
        run(photos, tmp_path / "out", client, job_id=night)
    monkeypatch.setattr(Ledger, "tables", reading)
    assert counts(run(photos, tmp_path / "out", client, job_id="night-4")) == (0, 12, 0)
    assert set(read) - {"night-4"} == {"night-3"}
    # One that has gone on since it was read is read again.
    (photos / "new.jpg").write_bytes(b"no image")
    run(photos, tmp_path / "out", client, job_id="night-5")
    (photos / "new.jpg").write_bytes(make_photograph(9))
    pipeline.attach("night-5").retry_failed(client=client)
    pipeline.attach("night-5").wait()
    assert counts(run(photos, tmp_path / "out", client, job_id="night-6")) == (0, 13, 0)


def test_the_ledger_of_another_collection_counts_where_it_wrote_over_an_image(
    photos: Path, tmp_path: Path, client: Client
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(photos / "2.jpg", other / "1.jpg")
    run(photos, tmp_path / "out", client)
    run(other, tmp_path / "out", client)
    again = run(photos, tmp_path / "out", client)
    assert counts(again) == (1, 11, 0)
    assert by_key(again).loc["1", "status"] == "stored"


def test_a_server_is_asked_whether_its_images_have_changed(web: Web, tmp_path: Path, client: Client) -> None:
    urls = [
        web.reply("/tag.jpg", Reply(make_photograph(1), headers={"ETag": '"1"'})),
        web.reply("/time.jpg", Reply(make_photograph(2), headers={"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"})),
        web.serve("/mute.jpg", make_photograph(3)),
        web.reply("/changed.jpg", Reply(make_photograph(4), headers={"ETag": '"1"'})),
    ]
    manifest = tmp_path / "urls.txt"
    manifest.write_text("\n".join(urls))
    run(manifest, tmp_path / "out", client, allow_private=True)
    changed = make_photograph(5)
    web.reply("/changed.jpg", Reply(changed, headers={"ETag": '"2"'}))
    web.sent_bytes = 0
    second = run(manifest, tmp_path / "out", client, allow_private=True)
    assert counts(second) == (1, 3, 0)
    # Of one that says nothing, the bytes have to be compared.
    assert web.sent_bytes == len(make_photograph(3)) + len(changed) == second.progress.bytes_in
    assert by_key(second)["output"].map(lambda output: Path(output).is_file()).all()


def test_a_promised_hash_that_is_the_same_needs_no_request(web: Web, tmp_path: Path, client: Client) -> None:
    manifest = tmp_path / "list.csv"
    url = web.serve("/a.jpg", make_photograph(1))
    digest = hashlib.sha256(make_photograph(1)).hexdigest()
    manifest.write_text(f"url,sha256\n{url},{digest}\n")
    options = {"allow_private": True, "hash_column": "sha256"}
    run(manifest, tmp_path / "out", client, **options)
    assert counts(run(manifest, tmp_path / "out", client, **options)) == (0, 1, 0)
    assert web.requests["/a.jpg"] == 1


def test_an_unchanged_prefix_is_skipped_without_reading_an_object(s3: S3, client: Client) -> None:
    s3.put({f"in/{number}.jpg": make_photograph(number) for number in range(5)})
    options = {"storage_options": s3.options}
    run(f"{s3.bucket}/in", f"{s3.bucket}/out", client, **options)
    second = run(f"{s3.bucket}/in", f"{s3.bucket}/out", client, **options)
    assert counts(second) == (0, 5, 0)
    assert second.progress.bytes_in == 0
    s3.put({"in/1.jpg": make_photograph(9)})
    s3.fs.rm_file(f"{s3.bucket}/out/2.jpg")
    third = run(f"{s3.bucket}/in", f"{s3.bucket}/out", client, **options)
    assert counts(third) == (2, 3, 0)


def test_objects_that_a_manifest_names_are_asked_for_their_version_only(s3: S3, tmp_path: Path, client: Client) -> None:
    s3.put({f"in/{number}.jpg": make_photograph(number) for number in range(3)})
    manifest = tmp_path / "list.txt"
    manifest.write_text("".join(f"{s3.bucket}/in/{number}.jpg\n" for number in range(3)))
    run(manifest, tmp_path / "out", client, storage_options=s3.options)
    second = run(manifest, tmp_path / "out", client, storage_options=s3.options)
    assert counts(second) == (0, 3, 0)
    assert second.progress.bytes_in == 0


@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_shards_are_added_for_what_is_new(photos: Path, tmp_path: Path, client: Client) -> None:
    first = run(photos, tmp_path / "out", client, output="webdataset", job_id="a")
    (photos / "new.jpg").write_bytes(make_photograph(100))
    second = run(photos, tmp_path / "out", client, output="webdataset", job_id="b")
    assert counts(second) == (1, 12, 0)
    assert_none_twice(tmp_path / "out")
    assert {told.about["key"] for told in read_shards(tmp_path / "out")} == {*by_key(first).index, "new"}
    # Without its shard, all that was in it is made again.
    for shard in (tmp_path / "out").glob("a-*.tar"):
        shard.unlink()
    assert counts(run(photos, tmp_path / "out", client, output="webdataset", job_id="c")) == (12, 1, 0)


def test_images_of_the_same_bytes_are_told(photos: Path, tmp_path: Path, client: Client) -> None:
    shutil.copy(photos / "1.jpg", photos / "copy.jpg")
    job = run(photos, tmp_path / "out", client)
    assert counts(job) == (13, 0, 0)
    assert job.progress.duplicates == 1
    assert set(by_key(job).loc[["1", "copy"], "duplicate_of"]) in ({"", "1"}, {"", "copy"})


@pytest.mark.parametrize("output", ["files", "webdataset"])
@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_images_of_the_same_bytes_are_made_once_if_asked(
    photos: Path, tmp_path: Path, client: Client, output: str
) -> None:
    for number in range(20):
        shutil.copy(photos / f"{number % 3}.jpg", photos / f"copy-{number}.jpg")
    (photos / "bad-1.jpg").write_bytes(b"no image")
    (photos / "bad-2.jpg").write_bytes(b"no image")
    job = run(photos, tmp_path / "out", client, output=output, deduplicate=True)
    assert counts(job) == (12, 20, 2)
    assert job.progress.duplicates == 21
    outcomes = by_key(job)
    copies = outcomes[(outcomes["status"] == "skipped")]
    for _, row in copies.iterrows():
        assert row["output"] == outcomes.loc[row["duplicate_of"], "output"]
        assert row["sha256"] == outcomes.loc[row["duplicate_of"], "sha256"]
    assert outcomes["output"][outcomes["status"] != "failed"].nunique() == 12
    messages = set(outcomes["message"][outcomes["status"] == "failed"])
    assert any("it has the same bytes as 'bad-" in message for message in messages)
    if output == "files":
        assert len(list((tmp_path / "out").rglob("*.jpg"))) == 12
    # The next run knows them all; the copies have no image of their own, so they are fetched to be told.
    assert counts(run(photos, tmp_path / "out", client, output=output, deduplicate=True)) == (0, 32, 2)


def test_a_duplicate_of_what_an_earlier_run_of_the_job_has_made_is_not_made(
    web: Web, tmp_path: Path, client: Client
) -> None:
    urls = [web.serve("/a.jpg", make_photograph(1)), web.url("/b.jpg")]
    job = run(urls, tmp_path / "out", client, allow_private=True, deduplicate=True)
    assert counts(job) == (1, 0, 1)
    web.serve("/b.jpg", make_photograph(1))
    job.retry_failed(client=client)
    job.wait()
    assert counts(job) == (1, 1, 0)
    assert job.outcomes()["output"].nunique() == 1


def test_a_gallery_and_a_report_of_a_run_that_skipped_all_have_something_to_show(
    photos: Path, tmp_path: Path, client: Client
) -> None:
    run(photos, tmp_path / "out", client)
    second = run(photos, tmp_path / "out", client)
    assert len(second.gallery(limit=5).tiles) == 5
    assert second.tail(3)
    assert "12" in second.report().html


def test_a_model_s_results_are_known_night_after_night(photos: Path, tmp_path: Path, client: Client) -> None:
    """What a night skips is as good as what it has stored, for the next one."""
    recipe = Recipe(max_width=100, max_height=100, enhance="sharpen")
    for stored, skipped in [(12, 0), (0, 12), (0, 12)]:
        job = run(photos, tmp_path / "out", client, recipe)
        assert counts(job) == (stored, skipped, 0)
        (model,) = set(job.outcomes()["model"])
        assert model.startswith("sharpen@")


def test_a_copy_is_made_when_its_original_has_changed(photos: Path, tmp_path: Path, client: Client) -> None:
    shutil.copy(photos / "1.jpg", photos / "0-copy.jpg")
    shutil.copy(photos / "1.jpg", photos / "sub" / "copy.jpg")
    first = run(photos, tmp_path / "out", client, deduplicate=True)
    assert counts(first) == (12, 2, 0)
    (original,) = {key for key in by_key(first)["duplicate_of"] if key}
    (photos / f"{original}.jpg").write_bytes(make_photograph(50))
    second = by_key(run(photos, tmp_path / "out", client, deduplicate=True))
    assert second["output"].nunique() == 13
    for key, row in second.iterrows():
        source = (photos / f"{key}.jpg").read_bytes()
        assert row["source_sha256"] == hashlib.sha256(source).hexdigest()
        assert row["sha256"] == hashlib.sha256(Path(row["output"]).read_bytes()).hexdigest()
    # Without the option, each has an image of its own again.
    assert by_key(run(photos, tmp_path / "out", client))["output"].nunique() == 14


def test_ledgers_of_an_earlier_release_are_no_hindrance(photos: Path, tmp_path: Path, client: Client) -> None:
    first = run(photos, tmp_path / "out", client)
    for part in (tmp_path / "out" / "_ledger" / first.id).glob("*.parquet"):
        new = ["fingerprint", "source_sha256", "duplicate_of", "robots"]
        pq.write_table(pq.read_table(part).drop_columns(new), part)
    assert counts(run(photos, tmp_path / "out", client)) == (12, 0, 0)
    assert counts(run(photos, tmp_path / "out", client, job_id=first.id)) == (12, 0, 0)


def test_a_job_that_is_retried_hides_no_later_one(photos: Path, tmp_path: Path, client: Client) -> None:
    (photos / "1.jpg").write_bytes(b"no image")
    first = run(photos, tmp_path / "out", client)
    (photos / "2.jpg").write_bytes(make_photograph(70))
    assert counts(run(photos, tmp_path / "out", client)) == (1, 10, 1)
    first.retry_failed(client=client)
    first.wait()
    assert counts(run(photos, tmp_path / "out", client)) == (0, 11, 1)


def test_a_list_in_python_is_the_same_collection_again(photos: Path, tmp_path: Path, client: Client) -> None:
    paths = sorted(map(str, photos.rglob("*.jpg")))
    for _ in range(3):
        run(paths, tmp_path / "out", client)
    assert len(list((tmp_path / "out" / "_ledger").glob("_checkpoint-*.json"))) == 1


def test_a_checkpoint_that_cannot_be_read_is_none(photos: Path, tmp_path: Path, client: Client) -> None:
    run(photos, tmp_path / "out", client)
    (checkpoint,) = (tmp_path / "out" / "_ledger").glob("_checkpoint-*.json")
    checkpoint.write_text("{")
    assert counts(run(photos, tmp_path / "out", client)) == (0, 12, 0)
