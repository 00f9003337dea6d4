"""The job as Python users have it: run, follow, resume, retry, cancel."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client
from PIL import Image
from redis import Redis

import pipeline
from pipeline.domain import Recipe
from pipeline.errors import (
    ClusterError,
    DestinationError,
    JobConflictError,
    JobNotFoundError,
    ModelError,
    SealError,
    SourceError,
    StateError,
)
from pipeline.runner.core import MAX_BATCH
from tests.fixtures.photographs import make_photograph
from tests.fixtures.web import Reply, Web

SMALL = Recipe(max_width=100, max_height=100, enhance=None)
COLUMNS_THAT_A_RUN_DECIDES = ["key", "url", "status", "width", "height", "bytes_in", "bytes_out", "sha256", "stage"]


@pytest.fixture(autouse=True)
def redis_url(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Keep the state of these tests on their own server."""
    monkeypatch.setenv("REDIS_URL", valkey_url)
    return valkey_url


def test_run_stores_every_image_and_says_so(photographs: Path, tmp_path: Path, client: Client) -> None:
    job = pipeline.run(photographs, tmp_path, SMALL, client=client)
    progress = job.wait()
    assert (progress.status, progress.total, progress.stored, progress.failed) == ("completed", 40, 40, 0)
    assert progress.done_by_stage == {"fetch": 40, "resize": 40, "store": 40}
    assert progress.percent == 100
    outcomes = job.outcomes().set_index("key")
    assert len(outcomes) == 40
    for key, row in outcomes.iterrows():
        stored = tmp_path / f"{key}.jpg"
        assert row["output"] == str(stored)
        assert row["sha256"] == hashlib.sha256(stored.read_bytes()).hexdigest()
        with Image.open(stored) as image:
            assert image.size == (row["width"], row["height"]) == (100, 75)
    assert job.failures().empty


def test_tasks_carry_the_names_of_stages_and_job(photographs: Path, tmp_path: Path, client: Client) -> None:
    """The dashboard and /metrics group tasks by them."""
    named = pipeline.run(photographs, tmp_path / "a", SMALL, client=client, job_id="nightly")
    named.wait()
    timed = pipeline.run(photographs, tmp_path / "b", SMALL, client=client)
    timed.wait()
    prefixes = client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.task_prefixes))
    assert {"fetch", "resize", "store"} <= prefixes
    assert not {prefix for prefix in prefixes if "nightly" in prefix}


def test_who_has_another_key_is_told_how_to_retry_what_has_secrets(
    web: Web, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is lost by his trying."""
    web.reply("/a.jpg", Reply(status=404), Reply(make_photograph(1)))
    monkeypatch.setenv("PIPELINE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PIPELINE_SECRET", "ours")
    urls = [web.url("/a.jpg?sig=s3cret"), web.serve("/b.jpg", make_photograph(2))]
    job = pipeline.run(urls, tmp_path, SMALL, client=client, job_id="signed", allow_private=True, retries=0)
    assert (job.wait().stored, job.progress.failed) == (1, 1)
    monkeypatch.setenv("PIPELINE_SECRET", "theirs")
    with pytest.raises(SealError, match="set PIPELINE_SECRET to the same text on every machine"):
        pipeline.attach("signed").retry_failed(client=client)
    assert len(pipeline.attach("signed").outcomes()) == 2
    monkeypatch.setenv("PIPELINE_SECRET", "ours")
    again = pipeline.attach("signed")
    again.retry_failed(client=client)
    assert (again.wait().stored, again.progress.failed) == (2, 0)
    assert web.queries["/a.jpg"] == "sig=s3cret"
    assert not (tmp_path / "data" / "sealing.key").exists()


@pytest.mark.parametrize("pattern", ["", "/*.jpg"])
def test_a_link_out_of_the_folder_is_an_outcome_of_its_own_unless_links_are_followed(
    tmp_path: Path, client: Client, pattern: str
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "good.jpg").write_bytes(make_photograph(1))
    (tmp_path / "private.jpg").write_bytes(make_photograph(2))
    (photos / "out.jpg").symlink_to("../private.jpg")
    job = pipeline.run(f"{photos}{pattern}", tmp_path / "out", SMALL, client=client)
    job.wait()
    assert dict(job.outcomes()[["key", "status"]].to_numpy()) == {"good": "stored", "out": "failed"}
    (failure,) = job.failures().itertuples()
    assert (failure.stage, failure.error) == ("fetch", "LinkError")
    assert "--follow-links" in failure.remedy
    followed = pipeline.run(f"{photos}{pattern}", tmp_path / "out", SMALL, client=client, follow_links=True)
    assert (followed.wait().stored, followed.progress.skipped) == (1, 1)


def test_a_bad_image_costs_one_image(web: Web, tmp_path: Path, client: Client) -> None:
    good = make_photograph(1)
    urls = [
        web.serve("/good.jpg", good),
        web.url("/missing.jpg"),
        web.serve("/text.jpg", b"<html>not found</html>"),
        web.serve("/empty.jpg", b""),
        web.serve("/truncated.jpg", good[: len(good) // 2]),
        web.reply("/forbidden.jpg", Reply(status=403)),
        web.serve("/good.png", make_photograph(2, format="PNG")),
    ]
    job = pipeline.run(urls, tmp_path, SMALL, client=client, allow_private=True, retries=0)
    progress = job.wait()
    assert (progress.status, progress.stored, progress.failed) == ("completed", 2, 5)
    assert progress.failed_by_stage == {"fetch": 2, "resize": 3}
    failures = job.failures()
    assert failures["count"].sum() == 5
    assert all(failures["remedy"])
    by_url = job.outcomes().set_index("url")
    assert by_url.loc[urls[1], ["stage", "error"]].tolist() == ["fetch", "MissingError"]
    assert "404" in by_url.loc[urls[1], "message"]
    assert by_url.loc[urls[2], "error"] == "NotAnImageError"
    assert by_url.loc[urls[4], "error"] == "TruncatedError"
    assert by_url.loc[urls[5], "error"] == "AccessError"


def test_an_image_listed_twice_is_done_once(web: Web, tmp_path: Path, client: Client) -> None:
    url = web.serve("/a.jpg", make_photograph(1))
    progress = pipeline.run([url, url, url], tmp_path, SMALL, client=client, allow_private=True).wait()
    assert (progress.total, progress.stored) == (1, 1)
    assert web.requests["/a.jpg"] == 1


def test_a_job_of_one_image_says_where_its_result_is(web: Web, tmp_path: Path, client: Client, redis_url: str) -> None:
    url = web.serve("/a.png", make_photograph(1, format="PNG"))
    job = pipeline.run(url, tmp_path, SMALL, client=client, allow_private=True)
    result = job.wait().result
    assert result is not None
    assert (result.width, result.height, result.channels) == (100, 75, 3)
    assert Path(result.url).is_file()
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        fields = redis.hgetall(f"job:{job.id}")
    assert fields["resultUrl"] == result.url
    assert fields["progress"] == "100.0"
    assert fields["status"] == "completed"


def test_fetches_go_on_beyond_a_batch_while_a_source_is_slow(web: Web, tmp_path: Path, client: Client) -> None:
    """A fetch task leaves its worker's thread, so that the next one can begin."""
    body = make_photograph(1)
    urls = [web.reply(f"/{number}.jpg", Reply(body, delay_s=0.3)) for number in range(8 * MAX_BATCH)]
    pipeline.run(urls, tmp_path, SMALL, client=client, allow_private=True).wait()
    workers = 2
    assert web.at_once_max > workers * 2


def test_running_the_same_id_again_does_nothing_again(photographs: Path, tmp_path: Path, client: Client) -> None:
    first = pipeline.run(photographs, tmp_path, SMALL, client=client, job_id="nightly")
    first.wait()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}
    again = pipeline.run(photographs, tmp_path, SMALL, client=client, job_id="nightly").wait()
    assert (again.status, again.total, again.stored) == ("completed", 40, 40)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")} == before


def test_an_id_belongs_to_one_recipe(photographs: Path, tmp_path: Path, client: Client) -> None:
    pipeline.run(photographs, tmp_path, SMALL, client=client, job_id="nightly").wait()
    with pytest.raises(JobConflictError, match="another recipe"):
        pipeline.run(photographs, tmp_path, Recipe(), client=client, job_id="nightly")


def test_cancel_stops_a_run_and_resume_completes_it(web: Web, tmp_path: Path, client: Client) -> None:
    """What a cancelled and resumed run leaves is what an undisturbed one leaves."""
    urls = [web.reply(f"/{number}.jpg", Reply(make_photograph(number % 7), delay_s=0.1)) for number in range(500)]
    job = pipeline.run(urls, tmp_path / "disturbed", SMALL, client=client, allow_private=True)
    for progress in job.updates():
        if progress.stored:
            break
    pipeline.attach(job.id).cancel()
    cancelled = job.wait()
    assert cancelled.status == "cancelled"
    assert 0 < cancelled.stored < 500
    assert len(job.outcomes()) == cancelled.stored

    resumed = pipeline.attach(job.id)
    resumed.resume(client=client)
    assert (resumed.wait().status, resumed.progress.stored) == ("completed", 500)

    undisturbed = pipeline.run(urls, tmp_path / "undisturbed", SMALL, client=client, allow_private=True)
    undisturbed.wait()
    _assert_same_ledger(resumed.outcomes(), undisturbed.outcomes())


def test_retry_runs_only_what_failed(web: Web, tmp_path: Path, client: Client) -> None:
    good = make_photograph(1)
    urls = [web.serve("/good.jpg", good), web.reply("/late.jpg", Reply(status=404), Reply(good)), web.url("/gone.jpg")]
    job = pipeline.run(urls, tmp_path, SMALL, client=client, allow_private=True, retries=0)
    assert job.wait().failed == 2
    job.retry_failed(client=client)
    progress = job.wait()
    assert (progress.status, progress.total, progress.stored, progress.failed) == ("completed", 3, 2, 1)
    assert web.requests["/good.jpg"] == 1
    assert web.requests["/gone.jpg"] == 2
    assert sorted(job.outcomes()["status"]) == ["failed", "stored", "stored"]


def test_attach_and_jobs_find_what_ran(photographs: Path, tmp_path: Path, client: Client) -> None:
    first = pipeline.run(photographs, tmp_path / "a", SMALL, client=client)
    first.wait()
    second = pipeline.run(photographs, tmp_path / "b", SMALL, client=client)
    second.wait()
    assert [job.id for job in pipeline.jobs()] == [second.id, first.id]
    attached = pipeline.attach(first.id)
    assert attached.wait().stored == 40
    assert attached.job == first.job
    assert first.id in repr(attached)
    with pytest.raises(JobNotFoundError, match="no-such-job"):
        pipeline.attach("no-such-job")


def test_wait_with_a_timeout_returns_a_job_that_goes_on(web: Web, tmp_path: Path, client: Client) -> None:
    urls = [web.reply("/slow.jpg", Reply(make_photograph(1), delay_s=1.0))]
    job = pipeline.run(urls, tmp_path, SMALL, client=client, allow_private=True)
    assert not job.wait(timeout=0.2).is_finished
    with pytest.raises(JobConflictError, match=job.id):
        pipeline.attach(job.id).resume(client=client)
    assert job.wait().stored == 1


def test_a_keras_model_runs_through_the_seam(photographs: Path, tmp_path: Path, client: Client) -> None:
    recipe = Recipe(max_width=100, max_height=100, enhance="sharpen")
    job = pipeline.run(photographs / "spring", tmp_path, recipe, client=client)
    progress = job.wait()
    assert (progress.stored, progress.failed) == (20, 0)
    assert progress.done_by_stage == {"fetch": 20, "resize": 20, "enhance": 20, "store": 20}
    outcomes = job.outcomes()
    assert set(outcomes["model"].str.split("@").str[0]) == {"sharpen"}
    assert (outcomes["seconds_enhance"] > 0).all()
    plain = pipeline.run(photographs / "spring", tmp_path / "plain", SMALL, client=client)
    plain.wait()
    assert not set(outcomes["sha256"]) & set(plain.outcomes()["sha256"])


def test_the_bytes_of_a_preview_are_those_of_a_run(photographs: Path, tmp_path: Path, client: Client) -> None:
    recipe = Recipe(max_width=90, max_height=90, enhance="sharpen", format="webp")
    shown = pipeline.preview(photographs / "spring" / "00.jpg", recipe)
    pipeline.run([photographs / "spring" / "00.jpg"], tmp_path, recipe, client=client).wait()
    (stored,) = tmp_path.glob("*.webp")
    assert shown.encoded == stored.read_bytes()
    assert shown.suffix == ".webp"
    assert (shown.before.size, shown.after.size) == ((320, 240), (90, 68))
    assert set(shown.seconds) == {"fetch", "resize", "enhance", "store"}


def test_preview_shows_what_the_model_changed(photographs: Path) -> None:
    photograph = next(photographs.rglob("*.jpg"))
    shown, strong = (
        pipeline.preview(photograph, Recipe(max_width=160, strength=strength, format="png")) for strength in (0.0, 1.0)
    )
    assert shown.difference.size == shown.after.size == (160, 120)
    assert shown.difference.getextrema() == ((0, 0), (0, 0), (0, 0))
    assert max(high for _, high in strong.difference.getextrema()) > 3


def test_a_model_that_doubles_brings_small_photographs_to_the_box(photographs: Path) -> None:
    recipe = Recipe(max_width=500, max_height=500, enhance="upscale2x")
    shown = pipeline.preview(next(photographs.rglob("*.jpg")), recipe)
    assert (shown.before.size, shown.after.size, shown.difference.size) == ((320, 240), (500, 375), (500, 375))


def test_plan_tries_a_sample_and_stores_nothing(photographs: Path) -> None:
    found = pipeline.plan(photographs, SMALL, threads=4)
    assert (found.total, found.failed, found.threads) == (40, 0, 4)
    assert set(found.seconds_by_stage) == {"fetch", "resize", "store"}
    assert found.eta_seconds == pytest.approx(40 / found.images_per_second)
    assert found.peak_bytes == 320 * 240 * 3
    assert sorted(path.name for path in photographs.iterdir()) == ["autumn", "spring"]


def test_nothing_begins_if_something_is_wrong(
    photographs: Path, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is an error of its own class, before any work: no job is left behind."""
    occupied = tmp_path / "a-file"
    occupied.write_text("")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match="no-such-folder"):
        pipeline.run(tmp_path / "no-such-folder", tmp_path / "out", client=client)
    with pytest.raises(SourceError, match="no images in"):
        pipeline.run(empty, tmp_path / "out", client=client)
    with pytest.raises(DestinationError, match="a-file"):
        pipeline.run(photographs, occupied / "out", client=client)
    with pytest.raises(ModelError, match="no-such-model"):
        pipeline.run(photographs, tmp_path / "out", Recipe(enhance="no-such-model"), client=client)
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:1"):
        pipeline.run(photographs, tmp_path / "out", cluster="tcp://127.0.0.1:1")
    assert pipeline.jobs() == []
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(StateError, match=r"127\.0\.0\.1:1"):
        pipeline.run(photographs, tmp_path / "out", client=client)


def test_a_job_can_be_driven_from_any_thread(photographs: Path, tmp_path: Path, client: Client) -> None:
    found: list[pipeline.Progress] = []
    thread = threading.Thread(
        target=lambda: found.append(pipeline.run(photographs, tmp_path, SMALL, client=client).wait())
    )
    thread.start()
    thread.join()
    assert found[0].stored == 40


def _assert_same_ledger(one: pd.DataFrame, other: pd.DataFrame) -> None:
    ordered = [table[COLUMNS_THAT_A_RUN_DECIDES].sort_values("key", ignore_index=True) for table in (one, other)]
    pd.testing.assert_frame_equal(*ordered)


def test_a_manifest_names_results_promises_their_bytes_and_has_columns_for_the_ledger(
    web: Web, tmp_path: Path, client: Client
) -> None:
    photos = [make_photograph(number) for number in range(3)]
    urls = [web.serve(f"/{number}.jpg", photo) for number, photo in enumerate(photos)]
    other = f"md5:{hashlib.md5(b'other').hexdigest()}"
    digests = [hashlib.sha256(photos[0]).hexdigest(), other, None, "nonsense", None]
    rows = pd.DataFrame(
        {"id": range(5), "link": [*urls, urls[0], None], "hash": digests, "name": ["a/0", "a/1", "b", "d", "e"]}
    )
    rows.to_parquet(tmp_path / "list.parquet")
    columns = {"url_column": "link", "key_column": "name", "hash_column": "hash", "carry_columns": ["id"]}
    job = pipeline.run(tmp_path / "list.parquet", tmp_path / "out", SMALL, client=client, allow_private=True, **columns)
    assert (job.wait().stored, job.progress.failed) == (2, 3)
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.jpg")) == [
        "a/0.jpg",
        "b.jpg",
    ]
    joined = job.outcomes().merge(rows.assign(id=rows["id"].astype(str)), on="id").sort_values("id")
    assert list(joined["key"]) == ["a/0", "a/1", "b", "d", "row-000005"]
    assert list(joined["error"]) == ["", "HashError", "", "HashError", "RowError"]
    assert list(joined["bytes_in"]) == [len(photos[0]), len(photos[1]), len(photos[2]), 0, 0]
    _, wrong, _, _, nowhere = joined["message"]
    assert f"{urls[1]}: its md5 is" in wrong
    assert nowhere == f"row 5 of '{tmp_path / 'list.parquet'}': no URL or path in 'link'"
    assert web.requests["/1.jpg"] == 1, "the same bytes would come again"
    # What was promised still holds when it is tried again.
    web.serve("/1.jpg", b"other")
    job.retry_failed(client=client)
    job.wait()
    outcomes = job.outcomes().set_index("id")
    assert list(outcomes["error"].sort_index()) == ["", "NotAnImageError", "", "HashError", "RowError"]


def test_a_job_that_goes_on_elsewhere_is_followed_there(photographs: Path, tmp_path: Path, client: Client) -> None:
    """Its own run has ended here; what another process does is not to be missed."""
    job = pipeline.run(photographs, tmp_path, SMALL, client=client)
    job.cancel()
    assert job.wait().status in {"cancelled", "completed"}
    elsewhere = pipeline.JobHandle(job.job, job._store, job._settings)
    elsewhere.resume(client=client)
    assert job.wait().status == "completed"
    assert list(job.updates())[-1].stored == 40


def test_a_run_that_was_asked_to_stop_is_not_taken_for_the_one_asked_for(
    web: Web, tmp_path: Path, client: Client
) -> None:
    url = web.reply("/slow.jpg", Reply(make_photograph(1), delay_s=25), Reply(make_photograph(1)))
    first = pipeline.run([url], tmp_path, SMALL, client=client, allow_private=True)
    web.wait_until_asked("/slow.jpg")
    assert pipeline.run([url], tmp_path, SMALL, client=client, allow_private=True) is first
    first.cancel()
    second = pipeline.run([url], tmp_path, SMALL, client=client, allow_private=True)
    assert second is not first
    assert second.wait().stored == 1


def test_a_run_with_other_options_is_another_run(photographs: Path, tmp_path: Path, client: Client) -> None:
    first = pipeline.run(photographs, tmp_path, SMALL, client=client)
    second = pipeline.run(photographs, tmp_path, SMALL, client=client, storage_options={"auto_mkdir": True})
    assert second is not first
    first.wait()
    second.wait()


def test_resume_goes_on_where_the_job_ran(photographs: Path, tmp_path: Path, client: Client) -> None:
    job = pipeline.run(photographs, tmp_path, SMALL, client=client)
    job.cancel()
    job.wait()
    (tmp_path / "spring").mkdir(exist_ok=True)
    job.resume()
    assert job.wait().stored == 40
    assert client.status == "running"
