"""What a client of the service asks for leads neither to this machine nor to its files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.network import PUBLIC, Canary
from tests.fixtures.photographs import make_photograph
from tests.fixtures.service import CONFIG, Service, serving, wait_until_ready
from tests.stages.test_ssrf import LITERALS, SCHEMES, WRITTEN_OTHERWISE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def strict_service(tmp_path_factory: pytest.TempPathFactory, service_redis: str) -> Iterator[Service]:
    """Run a server as it is by default, which refuses private addresses, with a queue worker."""
    folder = tmp_path_factory.mktemp("strict-service")
    environment = {"PIPELINE_ALLOW_PRIVATE": "0", "AWS_EC2_METADATA_DISABLED": "true"}
    opened = folder / "opened" / "photos"
    opened.mkdir(parents=True)
    config = CONFIG.replace('collections = ["s3://open/"]', f'collections = ["s3://open/", "{opened}/"]')
    config += "[limits]\nsubmissions_per_second = 10000\nsubmission_burst = 10000\n"
    with serving(folder, service_redis, "--workers", "1", config=config, environment=environment) as service:
        wait_until_ready(service)
        yield service


@pytest.fixture
def canary() -> Iterator[Canary]:
    """Listen where nobody may come."""
    with closing(Canary()) as canary:
        yield canary


def test_no_url_of_a_client_reaches_this_machine(strict_service: Service, canary: Canary) -> None:
    """Each is refused when it is submitted, or fails as its own Outcome; a file of this machine is never an image."""
    literal = [canary.url(host) for host in LITERALS]
    others = [url.replace("{port}", str(canary.port)) for url in (*WRITTEN_OTHERWISE, *SCHEMES)]
    # Those that lead to the public address would be dialled: this server's process has no internet of the tests'.
    asked = [*literal, *(url for url in others if PUBLIC not in url)]
    taken = [url for url in asked if not is_refused(strict_service, {"imageUrls": [url]})]
    assert len(asked) >= 150
    assert len(taken) >= 50, "most are for the fetching to refuse"
    job_id = strict_service.submit(imageUrls=taken)
    ended = strict_service.wait_for_end(job_id, 120)
    assert (ended["stored"], ended["failed"]) == (0, len(set(taken)))
    found = strict_service.request("GET", f"/jobs/{job_id}/items?limit=1000").json()["items"]
    assert {item["stage"] for item in found} == {"fetch"}
    assert {item["error"] for item in found} <= {"AddressError", "FetchError"}
    assert canary.connections == 0


@pytest.mark.parametrize(
    "collection",
    [
        "file:///etc/",
        "/etc/",
        "../../etc/",
        "simplecache::file:///etc/*",
        "simplecache::s3://open/a::file:///etc/passwd",
        "s3://open/a.jpg::http://127.0.0.1:{port}/a.jpg",
        "zip://*.jpg::http://127.0.0.1:{port}/a.zip",
        "s3://open/../closed/",
        "s3://open/%2e%2e/closed/",
        "s3://opened-by-nobody/",
        "S3://open/",
        "s3://key:secret@open/",
        "http://127.0.0.1:{port}/list.csv",
        "ftp://127.0.0.1:{port}/",
        "memory://open/",
    ],
)
def test_no_collection_and_destination_of_a_client_is_elsewhere_than_what_is_opened(
    strict_service: Service, canary: Canary, collection: str
) -> None:
    place = collection.replace("{port}", str(canary.port))
    for body in (
        {"collection": place, "destination": "s3://open/out"},
        {"collection": "s3://open/in/", "destination": place},
        {"imageUrl": place} if not place.startswith("http") else {"imageUrls": [place, "file:///etc/passwd"]},
    ):
        assert is_refused(strict_service, body)
    assert canary.connections == 0


def is_refused(service: Service, body: dict[str, Any]) -> bool:
    """Whether a submission is; it must not be anything but taken or refused."""
    answer = service.request("POST", "/jobs", json=body)
    assert answer.status_code in {202, 403, 422}, answer.text
    if answer.status_code == 202:
        service.request("DELETE", f"/jobs/{answer.json()['jobId']}")
    return answer.status_code != 202


def test_a_file_of_this_machine_is_not_read_by_its_path(strict_service: Service, tmp_path: Path) -> None:
    """Though a user of the command line may."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"secret")
    for written in (str(path), f"file://{path}", f"local://{path}"):
        assert is_refused(strict_service, {"imageUrl": written})


def test_no_link_in_what_is_opened_brings_a_client_out_of_it(strict_service: Service) -> None:
    """Whatever the path of a collection, a manifest or an image is, where it really leads is below an opened place."""
    opened = strict_service.root.parent / "opened" / "photos"
    secret = opened.parent / "secret"
    secret.mkdir()
    (secret / "key.png").write_bytes(make_photograph(1, format="PNG"))
    (secret / "list.txt").write_text("the-words-of-a-secret\n")
    (opened / "sub").mkdir()
    (opened / "good.png").write_bytes(make_photograph(2, format="PNG"))
    for name, target in {
        "sub/inside.png": "../good.png",
        "sub/out.png": "../../secret/key.png",
        "folder": "../secret",
        "list.txt": "../secret/list.txt",
    }.items():
        (opened / name).symlink_to(target)
    (opened / "own.csv").write_text(f"url\n{opened}/good.png\n{opened}/folder/key.png\nsub/out.png\n")

    def run(collection: str) -> tuple[dict[str, Any], str]:
        options = {"maxWidth": 32, "maxHeight": 32, "enhance": "none"}
        job_id = strict_service.submit(collection=f"{opened}/{collection}", options=options)
        ended = strict_service.wait_for_end(job_id, 120)
        return ended, strict_service.request("GET", f"/jobs/{job_id}/items?limit=100").text

    for collection, (stored, failed) in {"": (2, 1), "sub/*.png": (1, 1), "own.csv": (1, 2)}.items():
        ended, items = run(collection)
        assert (ended["status"], ended["stored"], ended["failed"]) == ("completed", stored, failed), (collection, items)
        assert items.count('"AddressError"') == failed
    for collection in ("folder", "folder/*.png", "folder/key.png", "list.txt"):
        ended, items = run(collection)
        assert (ended["status"], ended["stored"]) == ("failed", 0), (collection, items)
        assert "leads out of what a client of the service may ask for" in ended["error"]
        assert "the-words" not in items + str(ended)
