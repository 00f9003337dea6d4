"""What the documents of the service say, tried."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from pipeline.interfaces.server.options import Limits, OptionsFile, ServerOptions
from tests.fixtures.photographs import make_photograph
from tests.fixtures.service import Service

ROOT = Path(__file__).parents[1]
SERVICE = (ROOT / "docs" / "service.md").read_text("utf-8")


def block(text: str, language: str, containing: str) -> str:
    (found,) = [part for part in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if containing in part]
    return str(found)


def test_the_settings_of_the_docs_are_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(block(SERVICE, "toml", "[limits]"))
    given = OptionsFile.read(path)
    assert given.limits == Limits()
    assert given.fetching == ServerOptions(tmp_path).fetching
    assert path.read_text().count("=") >= len(fields(Limits))
    assert {client.name for client in given.clients.values()} == {"alice", "reporting"}
    for name in ("collections", "destinations", "trusts_proxy"):
        assert given.access[name] == getattr(ServerOptions(tmp_path), name)


@pytest.mark.slow
def test_the_requests_of_the_readme_and_the_follower_of_the_docs_work(service: Service, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(make_photograph(1))
    lines = block((ROOT / "README.md").read_text("utf-8"), "sh", "curl").splitlines()
    answers = []
    for line in lines:
        command = shlex.split(line.replace("$TOKEN", service.token).replace("http://127.0.0.1:8000", service.base_url))
        done = subprocess.run([*command, "-sS"], cwd=tmp_path, capture_output=True, text=True, check=True)
        answers.append(done.stdout)
    job_ids = [re.search(r'"jobId": "([^"]+)"', answer)[1] for answer in answers[:2]]
    assert all(job_id in answers[2] for job_id in job_ids)

    (tmp_path / "follow.py").write_text(
        block(SERVICE, "python", "websocket_connect").replace("127.0.0.1:8000", service.base_url.partition("://")[2])
    )
    done = subprocess.run(
        [sys.executable, "follow.py"],
        cwd=tmp_path,
        env=os.environ | {"TOKEN": service.token, "JOB": job_ids[1]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "completed 1 of 1"
