"""Whole jobs from S3 to S3, on real servers."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client
from PIL import Image
from redis import Redis

import pipeline
from pipeline import Recipe
from pipeline.errors import PipelineError
from pipeline.runner.ledger import Ledger
from tests.fixtures.photographs import make_photograph
from tests.fixtures.s3 import KEY, S3, SECRET

DOCUMENT = (Path(__file__).parents[1] / "docs" / "object-stores.md").read_text("utf-8")
SMALL = Recipe(max_width=100, max_height=100, enhance=None)


@pytest.fixture(autouse=True)
def redis_url(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REDIS_URL", valkey_url)
    return valkey_url


def put_photographs(s3: S3, count: int) -> None:
    s3.put({f"photos/{number:02}.jpg": make_photograph(number) for number in range(count)})


def test_a_prefix_becomes_another_with_its_ledger(s3: S3, client: Client) -> None:
    put_photographs(s3, 8)
    s3.put({"photos/empty.jpg": b"", "photos/sub/broken.jpg": b"no image"})
    job = pipeline.run(f"{s3.bucket}/photos/", f"{s3.bucket}/out", SMALL, client=client, storage_options=s3.options)
    progress = job.wait()
    assert (progress.stored, progress.failed) == (8, 2)
    assert {key for key in s3.object_keys() if key.startswith("out/0")} == {
        f"out/{number:02}.jpg" for number in range(8)
    }
    rows = job.outcomes().set_index("key")
    assert dict(rows["error"][["empty", "sub/broken"]]) == {"empty": "NotAnImageError", "sub/broken": "NotAnImageError"}
    data = s3.fs.cat_file(rows["output"]["03"])
    assert Image.open(io.BytesIO(data)).size == (rows["width"]["03"], rows["height"]["03"])
    assert len(data) == rows["bytes_out"]["03"]
    assert set(rows["attempts"]) == {1}
    # As anybody reads it.
    ledger = pd.read_parquet(f"{s3.bucket}/out/_ledger/{job.id}", storage_options=s3.options)
    assert sorted(ledger["key"]) == sorted(rows.index)


def test_a_job_goes_on_where_it_was_in_another_process(moto: S3, client: Client) -> None:
    """Storage options are never written down: they are to be given again."""
    put_photographs(moto, 4)
    places = (f"{moto.bucket}/photos", f"{moto.bucket}/out")
    pipeline.run(*places, SMALL, job_id="nightly", client=client, storage_options=moto.options).wait()
    moto.put({"photos/new.jpg": make_photograph(9)})
    # A handle that knows nothing but Redis, as another process has.
    handle = pipeline.attach("nightly")
    with pytest.raises(PipelineError, match=r"credentials.*storage_options=.*AWS_ACCESS_KEY_ID") as caught:
        without_credentials(lambda: handle.resume(client=client))
    assert "\n" not in str(caught.value)
    again = pipeline.attach("nightly", storage_options=moto.options)
    again.resume(client=client)
    progress = again.wait()
    assert progress.stored == 5
    assert len(again.outcomes()) == 5


def test_a_retry_reads_no_file_that_somebody_has_written_into_the_ledger(
    moto: S3, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write into the store gets nothing of the retrier's disk into it; the job's own paths are retried."""
    monkeypatch.setenv("PIPELINE_DATA_DIR", str(tmp_path / "data"))
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "good.jpg").write_bytes(make_photograph(1))
    (photos / "late.jpg").write_bytes(b"not there yet")
    (tmp_path / "private.png").write_bytes(make_photograph(2, format="PNG"))
    out = f"{moto.bucket}/out"
    job = pipeline.run(
        [photos / "good.jpg", photos / "late.jpg"], out, SMALL, client=client, storage_options=moto.options
    )
    assert (job.wait().stored, job.progress.failed) == (1, 1)
    rows = job.outcomes()
    assert list(rows["sealed_url"] != "") == list(rows["status"] == "failed")
    forged = rows[rows["status"] == "failed"].to_dict("records")[0]
    forged |= {"key": "forged", "url": str(tmp_path / "private.png"), "sealed_url": ""}
    forged["finished_at"] = round(forged["finished_at"].timestamp() * 1e6)
    Ledger(out, job.id, moto.options).append_rows([forged])
    (photos / "late.jpg").write_bytes(make_photograph(3))
    again = pipeline.attach(job.id, storage_options=moto.options)
    again.retry_failed(client=client)
    assert again.wait().stored == 2
    after = again.outcomes().set_index("key")
    assert (after["status"]["forged"], after["error"]["forged"]) == ("failed", "RowError")
    assert "no seal that shows" in after["message"]["forged"]
    assert not [key for key in moto.object_keys() if key.startswith("out/forged")]


def without_credentials(action: Callable[[], object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        action()


def test_no_secret_is_written_anywhere(
    moto: S3,
    client: Client,
    redis_url: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    put_photographs(moto, 4)
    moto.put({"photos/broken.jpg": b"no image"})
    secrets = ("AKIADISTINCTIVE", "a-distinctive-secret", "a-distinctive-token")
    options = {"endpoint_url": moto.endpoint, **dict(zip(("key", "secret", "token"), secrets, strict=True))}
    caplog.set_level(logging.INFO)
    published = []
    with Redis.from_url(redis_url) as redis, contextlib.closing(redis.pubsub()) as news:
        news.psubscribe("*")
        job = pipeline.run(f"{moto.bucket}/photos", f"{moto.bucket}/out", SMALL, client=client, storage_options=options)
        assert job.wait().stored == 4
        while message := news.get_message(timeout=1):
            published.append(repr(message))
        held = [redis.dump(key) + key for key in redis.scan_iter("*")]
        values = [repr(redis.hgetall(key)) for key in redis.scan_iter("*") if redis.type(key) == b"hash"]
    assert len(published) > 1
    tasks = client.run_on_scheduler(
        lambda dask_scheduler: repr(
            (list(dask_scheduler.tasks), dask_scheduler.transition_log, dask_scheduler.get_events())
        )
    )
    logs = client.run_on_scheduler(lambda dask_scheduler: repr(dask_scheduler.get_logs()))
    workers = client.run(lambda dask_worker: repr((dask_worker.get_logs(), dask_worker.state.tasks)))
    ledger = b"".join(moto.fs.cat(moto.fs.find(f"{moto.bucket}/out/_ledger")).values())
    rows = job.outcomes().to_csv()
    report = job.report().html
    said = "".join(capfd.readouterr())
    written = [*held, *values, *published, tasks, logs, workers, ledger, rows, report, said, caplog.text, repr(job)]
    for secret in secrets:
        assert secret not in repr(written)


def in_this_place(text: str, s3: S3) -> str:
    for written, real in {"http://127.0.0.1:9000": s3.endpoint, "s3://bucket": s3.bucket}.items():
        text = text.replace(written, real)
    return text.replace('"me"', repr(KEY)).replace('"secret": "secret"', f'"secret": {SECRET!r}')


def test_the_commands_of_the_docs_run(s3: S3, tmp_path: Path) -> None:
    put_photographs(s3, 4)
    exports, *lines = DOCUMENT.partition("```sh\n")[2].partition("```")[0].splitlines()
    assert {word.partition("=")[0] for word in exports.split()[1:]} <= set(s3.environment)
    for line in lines:
        command = shlex.split(in_this_place(line, s3))
        done = run_command(command, os.environ | s3.environment, tmp_path)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    assert [path.name for path in sorted((tmp_path / "results").glob("*.jpg"))] == [
        "00.jpg",
        "01.jpg",
        "02.jpg",
        "03.jpg",
    ]


def test_the_python_of_the_docs_runs(s3: S3, tmp_path: Path) -> None:
    put_photographs(s3, 4)
    (tmp_path / "example.py").write_text(in_this_place(DOCUMENT.partition("```python\n")[2].partition("```")[0], s3))
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "stored=4" in done.stdout


def run_command(command: list[str], environment: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    assert command[0] == "pipeline"
    return subprocess.run(
        [sys.executable, "-m", *command], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(params=["source", "destination"])
def misplaced(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Which of the two places is the wrong one."""
    (tmp_path / "a.jpg").write_bytes(make_photograph(0))
    return str(request.param)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("bucket", "there is no such bucket"),
        ("secret", "permission denied .* check the credentials"),
        ("endpoint", "Could not connect to the endpoint .*AWS_ENDPOINT_URL"),
        ("credentials", "there are no credentials; give storage_options=.* AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_before_the_run(
    rclone_server: str, tmp_path: Path, misplaced: str, wrong: str, reason: str, redis_url: str
) -> None:
    options = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9" if wrong == "endpoint" else rclone_server,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_MAX_ATTEMPTS": "1",
    }
    if wrong != "credentials":
        options |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": "wrong" if wrong == "secret" else SECRET}
    place = "s3://misspelt-bucket/photos"
    places = [place, str(tmp_path / "out")] if misplaced == "source" else [str(tmp_path / "a.jpg"), place]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", *places, "--enhance", "none"],
        env={**os.environ, **options},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr + done.stdout
    assert re.search(reason, done.stderr), done.stderr
