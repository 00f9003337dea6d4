"""The command line as its users have it: real processes, their output and their exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import pipeline as package
from pipeline.state import JobStore, connect
from tests.fixtures.photographs import make_photograph
from tests.fixtures.web import Reply, Web
from tests.interfaces.commands import Ended, Pipeline, ledger_rows

SUMMARY = ["job_id", "status", "total", "stored", "skipped", "failed", "seconds", "images_per_second"]
ON_A_JOB = ["status", "watch", "cancel", "retry", "resume", "failures"]
COMMANDS = ["run", "demo", "plan", "models", "bench", "jobs", *ON_A_JOB]
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobStore]:
    """Keep the embedded server that every command of these tests shares."""
    with connect(None, tmp_path_factory.getbasetemp() / "cli-data") as store:
        yield store


@pytest.fixture(scope="module")
def pipeline(store: JobStore, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Return the command line, in a folder with two photographs and things that are none."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "photos").mkdir()
    for number in range(2):
        (folder / "photos" / f"{number}.jpg").write_bytes(make_photograph(number))
    (folder / "empty").mkdir()
    (folder / "a-file").write_text("no folder")
    (folder / "unknown-field.toml").write_text("max_widht = 100")
    (folder / "broken.toml").write_text("max_width =")
    return Pipeline(folder, {"PIPELINE_DATA_DIR": str(tmp_path_factory.getbasetemp() / "cli-data")})


@dataclass(frozen=True)
class Mixed:
    """A job of six images, of which two failed."""

    ended: Ended
    out: Path
    report: Path


@pytest.fixture(scope="module")
def mixed(pipeline: Pipeline, web_server: Web) -> Mixed:
    """Run a manifest of good, late, missing and broken images, by a recipe in a file."""
    web_server.reset()
    urls = [web_server.serve(f"/{number}.jpg", make_photograph(number)) for number in range(4)]
    urls.append(web_server.reply("/late.jpg", Reply(status=404), Reply(make_photograph(4))))
    urls.append(web_server.serve("/text.jpg", b"<html>"))
    (pipeline.cwd / "mixed.csv").write_text("\n".join(["photo", *urls]))
    (pipeline.cwd / "recipe.toml").write_text('max_width = 60\nmax_height = 60\nformat = "webp"\nfit = "cover"')
    ended = pipeline(
        *("run", "mixed.csv", "mixed", "--job-id", "mixed", "--url-column", "photo", "--allow-private"),
        *("--recipe", "recipe.toml", "--format", "png", "--retries", "0", "--report", "report.html"),
    )
    return Mixed(ended, pipeline.cwd / "mixed", pipeline.cwd / "report.html")


def assert_is_one_error(ended: Ended, code: int, message: str) -> None:
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert message in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run", "COLLECTION"),
        ("run photos", "DESTINATION"),
        ("status", "JOB"),
        ("frobnicate", "frobnicate"),
        ("run photos out --frobnicate", "--frobnicate"),
        ("run photos out --quality best", "--quality"),
        ("run photos out --workers 0", "--workers"),
        ("run photos out --quality 101", "quality is 101; allowed is a whole number from 1 to 100"),
        ("run photos out --format gif", "format is 'gif'; allowed is jpeg, webp, avif, png, same"),
        ("run photos out --timeout 0", "timeout is 0.0"),
        ("run photos out --requests-per-second 0", "requests_per_second is 0.0"),
        ("run photos out --connections-per-host 0", "connections_per_host is 0"),
        ("run photos out --user-agent läb", "user_agent is 'läb'"),
        ("run photos out --job-id a/b", "a/b"),
        ("run photos out --enhance frobnicate", "frobnicate"),
        ("run photos out --recipe unknown-field.toml", "'max_widht'"),
        ("run photos out --recipe broken.toml", "broken.toml"),
        ("run photos out --recipe absent.toml", "absent.toml"),
        ("run photos out --report absent/report.html", "absent/report.html"),
        ("run absent out", "absent"),
        ("run empty out", "no images in"),
        ("run photos a-file", "a-file"),
        ("run photos a-file/out", "a-file"),
        ("plan absent", "absent"),
        ("serve --port 70000", "port is 70000; allowed is 0 to 65535"),
        ("serve --port http", "--port"),
        ("serve --config absent.toml", "cannot read the server's settings 'absent.toml'"),
        ("serve --config broken.toml", "broken.toml"),
        ("serve --destination a-file", "a-file"),
        ("serve --log-level loud", "log level is 'loud'"),
        ("work --jobs 0", "--jobs"),
        *((f"{command} absent", "no job 'absent'") for command in ON_A_JOB),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(pipeline: Pipeline, store: JobStore, arguments: str, message: str) -> None:
    """Before any work begins: no job is left behind."""
    before = store.jobs()
    assert_is_one_error(pipeline(*arguments.split()), 2, message)
    assert store.jobs() == before


def test_a_job_that_cannot_run_is_one_line_and_code_3(pipeline: Pipeline, store: JobStore) -> None:
    before = store.jobs()
    without_redis = Pipeline(pipeline.cwd, {"REDIS_URL": f"redis://{NOBODY}/0"})
    assert_is_one_error(without_redis("run", "photos", "out"), 3, NOBODY)
    assert_is_one_error(without_redis("jobs"), 3, NOBODY)
    assert_is_one_error(without_redis("serve", "--port", "0"), 3, NOBODY)
    assert_is_one_error(without_redis("work"), 3, NOBODY)
    assert_is_one_error(pipeline("run", "photos", "out", "--cluster", f"tcp://{NOBODY}"), 3, NOBODY)
    assert store.jobs() == before


def test_an_environment_variable_that_means_nothing_is_named(pipeline: Pipeline) -> None:
    told = Pipeline(pipeline.cwd, {**pipeline.environment, "PIPELINE_ALLOW_PRIVATE": "perhaps"})
    assert_is_one_error(told("jobs"), 2, "PIPELINE_ALLOW_PRIVATE")


def test_help_names_every_command_and_version_the_version(pipeline: Pipeline) -> None:
    shown = pipeline("--help")
    assert (shown.code, shown.err) == (0, "")
    assert set(COMMANDS) <= set(shown.out.split())
    alone = pipeline()
    assert (alone.code, alone.out, alone.err) == (2, shown.out, "")
    assert pipeline("--version") == Ended(0, f"{package.__version__}\n", "")


def test_json_is_all_that_standard_output_has(pipeline: Pipeline) -> None:
    ended = pipeline("run", "photos", "as-json", "--job-id", "as-json", "--json")
    assert (ended.code, ended.err) == (0, "")
    last = ended.lines[-1]
    assert list(last) == SUMMARY
    assert [last[name] for name in SUMMARY[:6]] == ["as-json", "completed", 2, 2, 0, 0]
    assert pipeline("status", "as-json", "--json").lines == [last]
    assert last in pipeline("jobs", "--json").lines
    assert pipeline("watch", "as-json", "--json").lines[-1] == last


def test_images_that_fail_are_told_and_the_code_is_1(mixed: Mixed) -> None:
    assert (mixed.ended.code, mixed.ended.err) == (1, "")
    assert "\x1b" not in mixed.ended.out
    assert "4 stored, 2 failed" in mixed.ended.out
    failed = [line for line in mixed.ended.out.splitlines() if line.startswith("1 failed in ")]
    assert len(failed) == 2
    assert any("MissingError" in line and "404" in line and " -> " in line for line in failed)
    assert any("NotAnImageError" in line and "/text.jpg" in line for line in failed)
    assert "pipeline retry mixed" in mixed.ended.out


def test_options_win_over_the_recipe_s_file(mixed: Mixed) -> None:
    stored = sorted(mixed.out.rglob("*.png"))
    assert len(stored) == 4
    with Image.open(stored[0]) as image:
        assert (image.format, image.size) == ("PNG", (60, 60))


def test_the_report_is_written(mixed: Mixed) -> None:
    page = mixed.report.read_text()
    assert page.startswith("<!doctype html>")
    assert "mixed" in page
    assert f"Report: {mixed.report.name}" in mixed.ended.out


def test_a_job_is_found_again(pipeline: Pipeline, mixed: Mixed) -> None:
    jobs = pipeline("jobs")
    assert (jobs.code, jobs.err) == (0, "")
    (line,) = [line for line in jobs.out.splitlines() if line.startswith("mixed ")]
    assert line.split()[1] == "completed"
    assert "6 of 6" in line
    assert "mixed.csv" in line
    assert pipeline("status", "mixed").out.startswith("mixed completed: 6 of 6, 2 failed")
    assert "has ended already" in pipeline("cancel", "mixed").out
    watched = pipeline("watch", "mixed")
    assert (watched.code, watched.err) == (1, "")
    assert pipeline("jobs", "--limit", "1").out.count("\n") == 2


def test_failures_are_grouped_with_an_example_and_a_remedy(pipeline: Pipeline, mixed: Mixed) -> None:
    plain, as_json = pipeline("failures", "mixed"), pipeline("failures", "mixed", "--json")
    assert plain.out.count("\n") == len(as_json.lines) == 2
    assert {group["error"] for group in as_json.lines} == {"MissingError", "NotAnImageError"}
    assert all(group.keys() == {"stage", "error", "count", "example", "message", "remedy"} for group in as_json.lines)


def test_retry_runs_what_failed_and_says_what_still_does(pipeline: Pipeline, mixed: Mixed, web_server: Web) -> None:
    ended = pipeline("retry", "mixed")
    assert ended.code == 1
    assert "5 stored" in ended.out
    assert "1 failed" in ended.out
    assert web_server.requests["/0.jpg"] == 1
    assert [row["status"] for row in ledger_rows(mixed.out, "mixed")].count("stored") == 5


def test_plan_and_models_tell_without_storing(pipeline: Pipeline) -> None:
    plan = pipeline("plan", "photos", "--enhance", "sharpen")
    assert (plan.code, plan.err) == (0, "")
    assert plan.out.startswith("2 images")
    assert [line.split()[0] for line in plan.out.splitlines()[1:5]] == ["fetch", "resize", "enhance", "store"]
    assert "Bottleneck" in plan.out
    assert pipeline("plan", "photos", "--json").lines[0]["total"] == 2
    models = pipeline("models")
    assert (models.code, models.err) == (0, "")
    assert "sharpen" in models.out
    assert sorted(path.name for path in (pipeline.cwd / "photos").iterdir()) == ["0.jpg", "1.jpg"]


def test_columns_of_a_manifest_are_named(pipeline: Pipeline, web_server: Web) -> None:
    photo = make_photograph(1)
    url = web_server.serve("/named.jpg", photo)
    rows = [{"url": url, "id": 7, "sha": hashlib.sha256(photo).hexdigest()}, {"url": url, "id": 8, "sha": "0" * 64}]
    (pipeline.cwd / "named.json").write_text(json.dumps(rows))
    columns = ("--key-column", "id", "--hash-column", "sha", "--carry-column", "id", "--carry-column", "sha")
    options = ("--job-id", "named", "--enhance", "none", "--allow-private")
    ended = pipeline("run", "named.json", "named", *options, *columns)
    assert (ended.code, (pipeline.cwd / "named" / "7.jpg").is_file()) == (1, True)
    ledger = pd.read_parquet(pipeline.cwd / "named" / "_ledger" / "named", columns=["key", "id", "sha", "error"])
    expected = [["7", "7", rows[0]["sha"], ""], ["8", "8", "0" * 64, "HashError"]]
    assert sorted(ledger.to_numpy().tolist()) == expected


def test_web_servers_are_asked_as_the_options_say(pipeline: Pipeline, web_server: Web) -> None:
    """And what they forbid is stored by a retry, if a run before it has said so."""
    web_server.reset()
    tagged = Reply(make_photograph(1), headers={"X-Robots-Tag": "noai"}, delay_s=0.02)
    urls = [web_server.reply(f"/{number}.jpg", tagged) for number in range(8)]
    (pipeline.cwd / "tagged.txt").write_text("\n".join(urls))
    run = ("run", "tagged.txt", "tagged", "--job-id", "tagged", "--enhance", "none", "--allow-private")
    gently = ("--connections-per-host", "1", "--requests-per-second", "50", "--user-agent", "lab-crawler/1.0")
    ended = pipeline(*run, *gently)
    assert (ended.code, web_server.requests.total(), web_server.at_once_max) == (1, 8, 1)
    assert "--ignore-robots" in pipeline("failures", "tagged").out
    assert web_server.headers["/0.jpg"]["User-Agent"].startswith("lab-crawler/1.0 ")
    pipeline(*run, *gently, "--ignore-robots")
    assert pipeline("retry", "tagged").code == 0
    assert web_server.at_once_max == 1
    ledger = pd.read_parquet(pipeline.cwd / "tagged" / "_ledger" / "tagged", columns=["key", "status", "robots"])
    assert set(ledger.groupby("key")["status"].last()) == {"stored"}
    assert set(ledger["robots"]) == {"noai"}


def test_a_terminal_gets_a_bar_for_each_stage(pipeline: Pipeline) -> None:
    code, shown = run_on_terminal(pipeline, "run", "photos", "barred", "--enhance", "sharpen")
    assert code == 0
    for stage in ("fetch", "resize", "enhance", "store"):
        assert re.search(rf"^  {stage} +━+ 2 / 2", shown, re.MULTILINE), shown
    assert "2 stored in" in shown


@pytest.mark.slow
def test_the_demo_runs_to_its_end_and_says_where_to_look(pipeline: Pipeline) -> None:
    ended = pipeline("demo", "demo")
    assert (ended.code, ended.err) == (0, "")
    assert "208 stored, 8 failed" in ended.out
    assert sum(int(count) for count in re.findall(r"^(\d+) failed in \w+: \w+Error: ", ended.out, re.MULTILINE)) == 8
    for name in ("contact-sheet.jpg", "report.html", "results"):
        assert f"demo/{name}" in ended.out
        assert (pipeline.cwd / "demo" / name).exists()
    assert "pipeline retry" not in ended.out


def run_on_terminal(pipeline: Pipeline, *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal of 80 columns; return its code and what it showed, without escape codes."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 80))
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        env=pipeline.environ(),
        cwd=pipeline.cwd,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    ) as process:
        os.close(its)
        shown = b""
        with suppress(OSError):  # how a terminal ends
            while read := os.read(ours, 4096):
                shown += read
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    return process.returncode, text.replace("\r", "")


def test_the_environment_names_the_destination(pipeline: Pipeline) -> None:
    told = Pipeline(pipeline.cwd, {**pipeline.environment, "PIPELINE_DESTINATION": "told"})
    ended = told("run", "photos", "--json")
    assert json.loads(ended.out.splitlines()[-1])["stored"] == 2
    assert len(list((pipeline.cwd / "told").glob("*.jpg"))) == 2
