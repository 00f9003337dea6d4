"""The service behind Jupyter's proxy: for whom Jupyter has let in, as if it were on its own, and for nobody else."""

from __future__ import annotations

import http.client
import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from playwright.sync_api import Browser, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pipeline.state.embedded import is_answering
from tests.fixtures.jupyter import JupyterServer, running_jupyter, servers_info
from tests.fixtures.photographs import make_photograph
from tests.fixtures.web import Web
from tests.interfaces.server.visits import WATCH_BARS, Visit, serve_photographs, visiting

SCRIPT = b"<script>parent.document.title = 'owned'</script>"


@pytest.fixture(scope="module")
def service(jupyter_server: JupyterServer) -> psutil.Process:
    """The service, which the first request starts."""
    assert jupyter_server.get("/image-pipeline/").ok
    return service_of(jupyter_server)


def service_of(server: JupyterServer) -> psutil.Process:
    (found,) = [process for process in server.family() if "serve" in process.cmdline()]
    return found


def socket_of(service: psutil.Process) -> Path:
    command = service.cmdline()
    return Path(command[command.index("--unix-socket") + 1])


@pytest.fixture
def visit(browser: Browser, jupyter_server: JupyterServer) -> Iterator[Visit]:
    """A tab of somebody who is logged in at Jupyter."""
    with visiting(browser) as visit:
        visit.page.goto(jupyter_server.link("/api"))
        yield visit


def logged_in(server: JupyterServer) -> requests.Session:
    """A browser's cookies after the login."""
    session = requests.Session()
    session.get(server.link("/lab"), timeout=60)
    assert session.cookies
    return session


def upload(server: JupyterServer, name: str, body: bytes) -> str:
    answer = requests.post(
        f"{server.url}/image-pipeline/jobs",
        headers={"Authorization": f"token {server.token}"},
        files=[("files", (name, body)), ("options", (None, '{"enhance": "none"}'))],
        timeout=60,
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["jobId"])


def wait_for_end(server: JupyterServer, job_id: str) -> dict[str, Any]:
    """Follow a job through the proxy to its end."""
    url = server.url.replace("http", "ws", 1) + f"/image-pipeline/ws?token={server.token}"
    with connect(url, proxy=None) as followed:
        followed.send(json.dumps({"type": "subscribe", "jobId": job_id}))
        while True:
            status: dict[str, Any] = json.loads(followed.recv(timeout=90))["status"]
            if status["status"] in {"completed", "failed", "cancelled"}:
                return status


def test_the_launcher_shows_the_page_with_its_icon(jupyter_server: JupyterServer) -> None:
    (entry,) = [
        entry for entry in servers_info(jupyter_server)["server_processes"] if entry["name"] == "image-pipeline"
    ]
    assert entry["launcher_entry"]["title"] == "Image pipeline"
    assert entry["new_browser_tab"]
    icon = jupyter_server.get(entry["launcher_entry"]["icon_url"])
    assert icon.headers["Content-Type"] == "image/svg+xml"
    assert icon.text.startswith("<svg")


def test_the_launcher_opens_the_page_in_a_tab_of_its_own(jupyter_server: JupyterServer, browser: Browser) -> None:
    with visiting(browser) as visit:
        # A workspace of its own: that of another test may have a notebook open, and then no launcher.
        visit.page.goto(jupyter_server.link("/lab/workspaces/launcher"))
        card = visit.page.locator(".jp-LauncherCard", has_text="Image pipeline")
        expect(card.locator("img")).to_have_js_property("complete", True, timeout=60_000)
        assert card.locator("img").evaluate("(icon) => icon.naturalWidth") > 0
        with visit.page.context.expect_page() as opened:
            card.click()
        expect(opened.value.locator("#job-form")).to_be_visible(timeout=60_000)
        assert opened.value.url == f"{jupyter_server.url}/image-pipeline/"


@pytest.mark.parametrize("path", ["/", "/jobs", "/models", "/metrics", "/static/main.js", "/results/a/b", "/healthz"])
def test_whom_jupyter_does_not_know_gets_nothing(jupyter_server: JupyterServer, path: str) -> None:
    answer = jupyter_server.get(f"/image-pipeline{path}", token="")
    assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (302, "/login")
    assert requests.post(f"{jupyter_server.url}/image-pipeline/jobs", json={}, timeout=30).status_code == 403
    with pytest.raises(InvalidStatus) as raised:
        connect(jupyter_server.url.replace("http", "ws", 1) + "/image-pipeline/ws", proxy=None)
    assert raised.value.response.status_code == 403


@pytest.mark.parametrize("token", ["", "wrong"])
def test_who_finds_the_socket_file_needs_the_token_too(service: psutil.Process, token: str) -> None:
    path = socket_of(service)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for asked in ("/jobs", f"/jobs?token={token}", "/metrics"):
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("GET", asked, headers={"Authorization": f"Bearer {token}"})
        assert connection.getresponse().status == 401
        connection.close()


def test_the_service_listens_on_no_port(service: psutil.Process) -> None:
    listening = [place for place in service.net_connections("inet") if place.status == psutil.CONN_LISTEN]
    assert listening == []


def test_the_services_token_is_in_no_page_log_or_command_line(
    jupyter_server: JupyterServer, service: psutil.Process, visit: Visit
) -> None:
    token = service.environ()["PIPELINE_TOKEN"]
    assert len(token) >= 32
    visit.page.goto(jupyter_server.link("/image-pipeline/"))
    expect(visit.page.locator("#job-form")).to_be_visible()
    stored = visit.page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie])")
    places = [visit.page.content(), visit.page.url, stored, jupyter_server.log, *service.cmdline()]
    assert not any(token in place for place in places)
    # Jupyter's, which the link had, is none of the page's business.
    assert jupyter_server.token not in stored + visit.page.url


def test_bars_move_until_a_job_from_the_page_is_complete_and_its_results_are_shown(
    jupyter_server: JupyterServer, web: Web, visit: Visit
) -> None:
    page = visit.page
    page.goto(f"{jupyter_server.url}/image-pipeline/")
    expect(page.locator("#gate")).to_be_hidden()
    page.evaluate(WATCH_BARS)
    job = visit.submit(serve_photographs(web, 4, delay_s=0.7), enhance="restore")
    expect(job.card.locator(".chip")).to_have_text("completed", timeout=90_000)
    expect(job.card.locator(".job-count")).to_have_text("4 of 4 images")
    shown = page.evaluate("(bar) => window.shownByBar[bar]", f"title-{job.id} All stages")
    assert shown == sorted(shown)
    assert any(0 < value < 100 for value in shown)
    expect(job.open_results()).to_have_count(4)
    job.card.locator(".thumbnail").last.scroll_into_view_if_needed()
    expect(job.card.locator(".thumbnail.loaded")).to_have_count(4)
    assert visit.complaints == []
    assert len(list((jupyter_server.root / "pipeline-results" / job.id).glob("*.*"))) == 4


def test_a_hostile_upload_never_becomes_a_page_on_jupyters_origin(jupyter_server: JupyterServer) -> None:
    """Whoever opens a link to it sees an image or nothing: its type is fixed, and no script runs."""
    for name, body in {
        "photo.jpg": make_photograph(1) + SCRIPT,
        "photo.svg": b'<svg xmlns="http://www.w3.org/2000/svg">' + SCRIPT + b"</svg>",
        "photo.html": b"<!doctype html>" + SCRIPT,
    }.items():
        job_id = upload(jupyter_server, name, body)
        wait_for_end(jupyter_server, job_id)
        (item,) = jupyter_server.get(f"/image-pipeline/jobs/{job_id}/items").json()["items"]
        kinds = []
        for kind in ("sources", "results"):
            answer = jupyter_server.get(f"/image-pipeline/{kind}/{job_id}/{item['key']}")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'")
            assert ("sandbox" in policy) == answer.ok
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            kinds.append(answer.headers["Content-Type"].partition(";")[0])
        assert kinds == ["image/jpeg"] * 2 if name == "photo.jpg" else ["application/json"] * 2


def test_nothing_may_frame_the_page(jupyter_server: JupyterServer, visit: Visit) -> None:
    assert "frame-ancestors 'none'" in jupyter_server.get("/image-pipeline/").headers["Content-Security-Policy"]
    visit.page.evaluate(
        "document.body.append(Object.assign(document.createElement('iframe'), {src: '/image-pipeline/'}))"
    )
    expect(visit.page.frame_locator("iframe").locator("#job-form")).to_have_count(0)


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_page_of_another_site_can_use_a_login_at_jupyter_for_nothing(
    jupyter_server: JupyterServer, service: psutil.Process, headers: dict[str, str]
) -> None:
    session, place = logged_in(jupyter_server), f"{jupyter_server.url}/image-pipeline/jobs"

    def submit(job_id: str, sent: dict[str, str]) -> int:
        body = {"imageUrl": "http://127.0.0.1:9/x.jpg", "jobId": job_id}
        return session.post(place, json=body, headers=sent, timeout=30).status_code

    name = f"of-{headers.get('Origin', 'none')[7:] or 'nowhere'}"
    # The service refuses before it has read the body, which the proxy may take for a broken connection.
    assert submit(f"{name}-foreign", headers) in {403, 500}
    assert submit(f"{name}-own", {"Origin": jupyter_server.url, "Sec-Fetch-Site": "same-origin"}) == 202
    assert session.get(f"{place}/{name}-own", timeout=30).ok
    assert session.get(f"{place}/{name}-foreign", timeout=30).status_code == 404


@pytest.mark.slow
def test_under_a_hub_the_service_works_and_ends_with_jupyter(tmp_path: Path) -> None:
    """TLS has ended before, the name is the hub's, the path the user's; shutting down tells the proxy nothing."""
    with running_jupyter(tmp_path, "--ServerApp.base_url=/user/ada/", "--ServerApp.allow_remote_access=True") as server:
        base = "/user/ada"
        assert not Path(server.environment["PIPELINE_DATA_DIR"]).exists()
        assert not [process for process in server.family() if "pipeline" in process.cmdline()]
        headers = {
            "Host": "hub.example.org",
            "Origin": "https://hub.example.org",
            "X-Forwarded-Proto": "https,http",
            "X-Forwarded-Host": "hub.example.org,10.0.0.1",
            "Authorization": f"token {server.token}",
        }
        answer = requests.post(
            f"{server.url}{base}/image-pipeline/jobs",
            json={"imageUrl": "http://127.0.0.1:9/x.jpg", "options": {"enhance": "none"}},
            headers=headers,
            timeout=90,
        )
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["jobId"]
        assert answer.headers["Location"] == f"{base}/image-pipeline/jobs/{job_id}"
        assert server.get(f"{base}/pipeline/jobs/{job_id}").json()["id"] == job_id
        data = Path(server.environment["PIPELINE_DATA_DIR"])
        assert is_answering(data)
        family = server.family()
        assert {"serve", "work"} <= {word for process in family for word in process.cmdline()}
        path = socket_of(service_of(server))
        assert requests.post(
            f"{server.url}{base}/api/shutdown", headers={"Authorization": f"token {server.token}"}, timeout=30
        ).ok
        _, left = psutil.wait_procs(family, timeout=60)
        assert left == []
        assert not path.exists()
