"""By default nothing listens beyond loopback, and nothing that nobody needs."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.runner.cluster_settings import Tls
from tests.fixtures.photographs import make_photograph
from tests.fixtures.service import serving, wait_until_ready
from tests.runner.test_named_cluster import make_certificates

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

_DRIVER = """
import sys, time
import pipeline
if __name__ == "__main__":
    job = pipeline.run(sys.argv[1], sys.argv[2], pipeline.Recipe(enhance=None), workers=2)
    while not job.progress.stored:
        time.sleep(0.05)
    print("runs", flush=True)
    sys.stdin.readline()
    job.cancel()
    job.wait()
"""


def listeners_of(processes: list[psutil.Process]) -> dict[int, list[tuple[str, int]]]:
    """Return the addresses that processes listen on over IP, TCP and UDP, by their ids."""
    found: dict[int, list[tuple[str, int]]] = {}
    for process in processes:
        with_ports = [each for each in process.net_connections("inet") if each.laddr and not each.raddr]
        found[process.pid] = [
            (each.laddr.ip, each.laddr.port)
            for each in with_ports
            if each.type == socket.SOCK_DGRAM or each.status == psutil.CONN_LISTEN
        ]
    return found


def require_loopback(found: dict[int, list[tuple[str, int]]]) -> None:
    beyond = [each for places in found.values() for each in places if not ipaddress.ip_address(each[0]).is_loopback]
    assert not beyond


def family_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]


def state_servers(data_dir: Path) -> list[psutil.Process]:
    """Return the processes of the embedded server of a data folder: the keeper and Valkey."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        about = [process.info["cwd"] or "", *(process.info["cmdline"] or [])]
        if any(str(data_dir) in word for word in about):
            found.append(process)
    return found


def environment(data_dir: Path) -> dict[str, str]:
    own = {
        name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_") and name != "REDIS_URL"
    }
    return own | {"PIPELINE_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)}


@contextmanager
def driving(tmp_path: Path, data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(400):
        (photos / f"{number}.jpg").write_bytes(make_photograph(number % 5))
    (tmp_path / "drive.py").write_text(_DRIVER)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "drive.py"), str(photos), str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(data_dir),
    ) as process:
        assert process.stdout
        assert process.stdin
        try:
            line = ""
            while line != "runs\n":
                line = process.stdout.readline()
                assert line, "the run has ended before it was looked at"
            yield process
            process.stdin.write("\n")
            process.stdin.flush()
            process.wait(60)
        finally:
            process.kill()


def test_a_run_listens_on_loopback_only_and_the_embedded_server_on_no_port(tmp_path: Path) -> None:
    """The driver: its scheduler, dashboard and nannies. Each worker: its own, and its pages. Valkey: a socket file."""
    data_dir = tmp_path / "data"
    with driving(tmp_path, data_dir) as process:
        family = family_of(process)
        found = listeners_of(family)
        require_loopback(found)
        # The nannies live in the driver's process; beside these are helpers of multiprocessing, with no port.
        assert sorted((len(places) for places in found.values() if places), reverse=True) == [4, 2, 2], found
        state = state_servers(data_dir)
        names = {each.name() for each in state}
        assert any("valkey" in name or "redis" in name for name in names), names
        in_family = {each.pid for each in family}
        apart = [each for each in state if each.pid not in in_family]
        assert not any(listeners_of(apart).values())
        # Its path is relative to the server's folder, since a socket's has few letters.
        (path,) = {
            Path(server.cwd()) / each.laddr
            for server in apart
            for each in server.net_connections("unix")
            if isinstance(each.laddr, str) and each.laddr.endswith(".sock")
        }
        assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0


def test_a_service_listens_on_loopback_only(tmp_path: Path, service_redis: str) -> None:
    """The server one port; its queue worker the ports of a local cluster."""
    with serving(tmp_path / "service", service_redis, "--workers", "1") as service:
        wait_until_ready(service)
        found = listeners_of(service.family())
        require_loopback(found)
        assert len(found[service.pid]) == 1, found
        assert sum(map(len, found.values())) <= 6, found


def test_a_service_behind_a_proxy_of_its_user_has_no_port(tmp_path: Path, service_redis: str) -> None:
    """As Jupyter starts it: the socket file is its user's alone."""
    path = tmp_path / "s"
    command = [*(sys.executable, "-m", "pipeline", "serve", "--unix-socket", str(path), "--no-work")]
    command += ["--destination", str(tmp_path / "out")]
    own = environment(tmp_path / "data") | {"REDIS_URL": service_redis, "PIPELINE_TOKEN": "a-token-of-the-tests"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=own) as process:
        try:
            assert process.stdout
            assert process.stdout.readline()
            wait_until(path.exists)
            assert listeners_of(family_of(process)) == {process.pid: []}
            assert path.stat().st_mode & 0o777 == 0o600
        finally:
            process.terminate()
            process.wait(30)


def test_of_a_cluster_as_the_document_starts_it_only_what_asks_for_a_certificate_is_reached(tmp_path: Path) -> None:
    """Its dashboard and its workers' pages are on loopback."""
    tls = make_certificates(tmp_path / "certificates")
    document = (ROOT / "docs" / "clusters.md").read_text("utf-8")
    scheduler, worker = re.findall(r"^dask (?:scheduler|worker) .*--tls-.*$", document, re.MULTILINE)
    given = {
        "ca.pem": tls.ca_file,
        "node.pem": tls.client_cert,
        "node.key": tls.client_key,
        "127.0.0.1:8787": "127.0.0.1:0",
    }
    file = tmp_path / "scheduler.json"
    own = environment(tmp_path) | {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    assert "export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True" in document
    with ExitStack() as stack:

        def start(command: str, *options: str) -> subprocess.Popen[str]:
            words = [str(given.get(word, word)) for word in command.split()]
            process = subprocess.Popen(
                [sys.executable, "-m", *words, *options],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                env=own,
                cwd=tmp_path,
            )
            stack.callback(process.wait)
            stack.callback(lambda: [each.kill() for each in reversed(family_of(process))])
            return process

        processes = [start(scheduler, "--port", "0", "--scheduler-file", str(file))]
        wait_until(file.exists)
        given["tls://host:8786"] = json.loads(file.read_text())["address"]
        processes.append(start(worker, "--nthreads", "1"))
        # The scheduler's own port and its dashboard; the nanny's, the worker's, and the worker's pages.
        wait_until(lambda: [count_ports(process) for process in processes] == [2, 3])
        for process in processes:
            found = [place for places in listeners_of(family_of(process)).values() for place in places]
            beyond = {place for place in found if not ipaddress.ip_address(place[0]).is_loopback}
            assert len({port for _, port in found} - {port for _, port in beyond}) == 1, "the pages"
            assert beyond
            for host, port in beyond:
                # Who listens on all of them is asked on one.
                reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
                assert asks_for_certificate(reached, port, tls)


def count_ports(process: subprocess.Popen[str]) -> int:
    return len({port for places in listeners_of(family_of(process)).values() for _, port in places})


def asks_for_certificate(host: str, port: int, tls: Tls) -> bool:
    """Whether a port speaks TLS, takes who has a certificate and nobody else."""
    context = ssl.create_default_context(cafile=str(tls.ca_file))
    context.check_hostname = False
    for has_certificate in (False, True):
        if has_certificate:
            context.load_cert_chain(tls.client_cert, tls.client_key)
        with socket.create_connection((host, port), 30) as plain:
            try:
                with context.wrap_socket(plain) as encrypted:
                    encrypted.settimeout(30)
                    is_taken = bool(encrypted.recv(1))
            except (ssl.SSLError, ConnectionError):
                is_taken = False
        if is_taken != has_certificate:
            return False
    return True


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(0.1)


def test_what_listens_beyond_loopback_is_found() -> None:
    """So that finding nothing means something."""
    with socket.create_server(("0.0.0.0", 0)), pytest.raises(AssertionError):
        require_loopback(listeners_of([psutil.Process()]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("0.0.0.0", 0))
        with pytest.raises(AssertionError):
            require_loopback(listeners_of([psutil.Process()]))
