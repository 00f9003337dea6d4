"""The jobs under Jupyter's own roof: who gets in is Jupyter's business, what is said is the service's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pipeline.domain import Job, Recipe
from pipeline.errors import StateError
from pipeline.interfaces.jupyter.on_demand import DeskOnDemand
from pipeline.state import connect as connect_state
from tests.fixtures.jupyter import JupyterServer, running_jupyter
from tests.fixtures.photographs import make_photograph
from tests.fixtures.service import follow
from tests.fixtures.web import Reply, Web

RUN = """
import sys
import pipeline

if __name__ == "__main__":
    recipe = pipeline.Recipe(enhance=None)
    pipeline.run(sys.argv[3:], sys.argv[2], recipe, job_id=sys.argv[1], workers=1).wait()
"""


def open_socket(server: JupyterServer, **options: Any) -> ClientConnection:
    return connect(server.url.replace("http", "ws", 1) + "/pipeline/ws", proxy=None, **options)


def as_user(server: JupyterServer) -> dict[str, str]:
    return {"Authorization": f"token {server.token}"}


def login_cookies(server: JupyterServer) -> dict[str, str]:
    session = requests.Session()
    session.get(server.link("/lab"), timeout=60)
    return {"Cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in session.cookies)}


def refusal(server: JupyterServer, **options: Any) -> int:
    with pytest.raises(InvalidStatus) as raised:
        open_socket(server, **options)
    return int(raised.value.response.status_code)


def test_a_socket_is_for_whom_jupyter_knows(jupyter_server: JupyterServer) -> None:
    assert refusal(jupyter_server) == 403
    assert refusal(jupyter_server, additional_headers={"Authorization": "token wrong"}) == 403
    with open_socket(jupyter_server, additional_headers=as_user(jupyter_server)) as socket:
        socket.send("{}")
        assert "allowed are 'subscribe' and 'unsubscribe'" in json.loads(socket.recv(timeout=30))["error"]


@pytest.mark.parametrize("path", ["/pipeline/jobs", "/pipeline/jobs/some"])
def test_jobs_are_for_whom_jupyter_knows(jupyter_server: JupyterServer, path: str) -> None:
    answer = jupyter_server.get(path, token="")
    assert (answer.status_code, list(answer.json())) == (403, ["error"])


def test_a_page_of_another_site_cannot_open_a_socket_with_the_users_cookie(jupyter_server: JupyterServer) -> None:
    cookies = login_cookies(jupyter_server)
    assert refusal(jupyter_server, additional_headers=cookies, origin="http://evil.example") == 403
    with open_socket(jupyter_server, additional_headers=cookies, origin=jupyter_server.url) as socket:
        assert socket.ping().wait(30)


def test_a_page_of_another_site_cannot_read_jobs_with_the_users_cookie(jupyter_server: JupyterServer) -> None:
    headers = login_cookies(jupyter_server)
    assert jupyter_server.get("/pipeline/jobs", token="", headers=headers).ok
    answer = jupyter_server.get("/pipeline/jobs", token="", headers=headers | {"Origin": "http://evil.example"})
    assert answer.status_code == 404
    assert "jobs" not in answer.json()


def test_a_job_of_any_process_is_followed_from_its_snapshot_to_its_end(
    jupyter_server: JupyterServer, web: Web, tmp_path: Path
) -> None:
    (tmp_path / "run.py").write_text(RUN)
    urls = [web.reply(f"/{number}.jpg", Reply(make_photograph(number), delay_s=number * 0.3)) for number in range(6)]
    command = [sys.executable, "run.py", "from-a-script", str(tmp_path / "out"), *urls]
    with subprocess.Popen(command, cwd=tmp_path, env=jupyter_server.environment, stdout=subprocess.DEVNULL) as script:
        web.wait_until_asked("/0.jpg", 90)
        with open_socket(jupyter_server, additional_headers=as_user(jupyter_server)) as socket:
            states = list(follow(socket, "from-a-script"))
        assert script.wait(60) == 0
    versions = [state["version"] for state in states]
    assert versions == sorted(set(versions))
    assert len(versions) > 1
    assert states[0]["status"] == "processing"
    assert (states[-1]["status"], states[-1]["stored"]) == ("completed", 6)
    # The user's own machine: paths are as they are.
    assert states[-1]["destination"] == str(tmp_path / "out")

    assert jupyter_server.get("/pipeline/jobs/from-a-script").json() == states[-1]
    assert states[-1] in jupyter_server.get("/pipeline/jobs").json()["jobs"]
    assert len(jupyter_server.get("/pipeline/jobs?limit=1").json()["jobs"]) == 1


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/pipeline/jobs/nobodys", 404, "Job not found"),
        ("/pipeline/jobs?limit=0", 422, "limit is '0'; allowed is a whole number from 1 to 1000"),
        ("/pipeline/jobs?limit=%25s", 422, "limit is '%s'"),
    ],
)
def test_what_cannot_be_answered_is_said_as_the_service_says_it(
    jupyter_server: JupyterServer, path: str, status: int, words: str
) -> None:
    answer = jupyter_server.get(path)
    assert (answer.status_code, answer.headers["Content-Type"].partition(";")[0]) == (status, "application/json")
    assert words in answer.json()["error"]


def test_a_client_that_says_too_much_is_closed(jupyter_server: JupyterServer) -> None:
    with open_socket(jupyter_server, additional_headers=as_user(jupyter_server)) as socket:
        socket.send("x" * 20_000)
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)


def test_jupyters_authorizer_may_forbid_it(tmp_path: Path) -> None:
    forbids = "--ServerApp.authorizer_class=tests.interfaces.jupyter.authorizers.NoPipeline"
    with running_jupyter(tmp_path, forbids) as server:
        assert server.get("/api/status").ok
        assert server.get("/pipeline/jobs").status_code == 403
        assert refusal(server, additional_headers=as_user(server)) == 403
        assert not (server.home / "pipeline").exists()


def test_a_redis_that_is_not_there_is_tried_again_by_who_asks_next(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        desks = DeskOnDemand()
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        with pytest.raises(StateError):
            await desks.get()
        monkeypatch.setenv("REDIS_URL", valkey_url)
        with connect_state(valkey_url, Path("unused")) as store:
            store.create(Job("here", "/in", "/out", Recipe()))
        desk = await desks.get()
        assert await desks.get() is desk
        assert [job.job_id for job in await desk.list_newest(10)] == ["here"]
        await desks.aclose()
        await desks.aclose()

    asyncio.run(ask())


def test_loading_the_extension_and_the_launcher_entry_imports_nothing_heavy() -> None:
    """Jupyter loads them at every start, also for users who never ask for the pipeline."""
    code = """
import sys
from importlib.metadata import entry_points
from pipeline.interfaces.jupyter import _jupyter_server_extension_points

assert _jupyter_server_extension_points()[0]["app"].name == "pipeline"
(entry,) = entry_points(group="jupyter_serverproxy_servers", name="image-pipeline")
assert entry.load()()["unix_socket"]
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "dask",
        "distributed",
        "keras",
        "pandas",
        "numpy",
        "PIL",
        "bokeh",
        "redis",
        "aiohttp",
        "pyarrow",
        "structlog",
    }
    assert heavy.isdisjoint(done.stdout.split())
