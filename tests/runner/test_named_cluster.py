"""Clusters that a settings file names, certificates, and workers with resources."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from dask.utils import key_split

import pipeline
from pipeline.domain import Recipe
from pipeline.errors import ClusterError, SettingsError
from pipeline.runner.cluster import check_scheduler, open_client
from pipeline.runner.cluster_settings import Tls
from pipeline.runner.named_cluster import await_workers, make_security
from tests.fixtures.cluster import DaskCommands

SMALL = Recipe(max_width=100, max_height=100, enhance=None)
LOCAL = {
    "class": "distributed.LocalCluster",
    "arguments": {"n_workers": 0, "threads_per_worker": 1, "dashboard_address": ":0"},
}


@pytest.fixture(autouse=True)
def redis_url(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)


def make_certificates(folder: Path) -> Tls:
    """Make an authority that has signed itself, and is the certificate of everybody."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir()
    tls = Tls(folder / "ca.pem", folder / "client.pem", folder / "client.key")
    for path in (tls.ca_file, tls.client_cert):
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    tls.client_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return tls


@pytest.fixture
def certificates(tmp_path: Path) -> Tls:
    return make_certificates(tmp_path / "certificates")


@pytest.fixture
def tls_commands(tmp_path: Path, certificates: Tls) -> Iterator[DaskCommands]:
    """Run a scheduler that speaks TLS only, and workers that the test adds."""
    files = {"ca-file": certificates.ca_file, "cert": certificates.client_cert, "key": certificates.client_key}
    options = [word for name, path in files.items() for word in (f"--tls-{name}", str(path))]
    commands = DaskCommands(tmp_path, "--protocol", "tls", *options)
    try:
        yield commands
    finally:
        commands.kill()


def write_settings(folder: Path, place: str, more: str = "") -> Path:
    path = folder / "cluster.toml"
    path.write_text(
        f"{place}\n{more}\n[security]\nca_file = 'ca.pem'\nclient_cert = 'client.pem'\nclient_key = 'client.key'\n"
    )
    return path


@pytest.mark.slow
def test_a_job_runs_over_tls_and_who_has_no_certificate_is_told(
    tls_commands: DaskCommands, certificates: Tls, photographs: Path, tmp_path: Path
) -> None:
    tls_commands.add_worker()
    with tls_commands.connect(1, make_security(certificates)) as client:
        address = client.scheduler.address
    assert address.startswith("tls://")
    settings = write_settings(certificates.ca_file.parent, "scheduler_file = '../scheduler.json'")
    progress = pipeline.run(photographs, tmp_path / "out", SMALL, cluster=settings).wait()
    assert (progress.status, progress.stored) == ("completed", 40)

    with pytest.raises(ClusterError, match="needs certificates: name a settings file"):
        check_scheduler(address)
    strangers = make_certificates(tmp_path / "strangers").ca_file.parent
    with pytest.raises(ClusterError, match="not of the same authority"):
        check_scheduler(write_settings(strangers, f"address = {address!r}"), timeout_s=3)


def test_files_that_are_no_certificates_are_named(certificates: Tls) -> None:
    certificates.client_key.write_text("nonsense")
    settings = write_settings(certificates.ca_file.parent, "address = 'tls://127.0.0.1:1'")
    with pytest.raises(ClusterError, match=r"cannot use the certificates .*client\.key"):
        check_scheduler(settings)


@pytest.mark.slow
def test_a_cluster_that_is_named_lives_as_long_as_its_job(photographs: Path, tmp_path: Path) -> None:
    progress = pipeline.run(photographs, tmp_path / "out", SMALL, cluster=LOCAL | {"workers": 1}).wait()
    assert (progress.status, progress.stored) == ("completed", 40)


@pytest.mark.parametrize(
    ("class_name", "message"),
    [
        ("LocalCluster", "allowed is module and name"),
        ("dask_jobqueue_.SLURMCluster", r"try `pip install 'dask_jobqueue_'`"),
        ("distributed.NoCluster", "has no class 'NoCluster'"),
        ("pathlib.Path", "is no Dask cluster"),
    ],
)
def test_a_class_that_cannot_be_used_is_named(class_name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_scheduler({"class": class_name})


def test_what_a_class_says_of_its_arguments_is_told_without_secrets() -> None:
    # Which of its processes says so, and whether the class or its worker, is Dask's affair.
    settings = LOCAL | {"arguments": {"n_workers": 1, "corse": 8, "dashboard_address": ":0"}}
    with (
        pytest.raises(ClusterError, match=r"cannot start a distributed\.LocalCluster: TypeError.*'corse'"),
        open_client(settings),
    ):
        pass
    secrets = {
        "api_token": "hunter2",
        "env": [{"name": "DB_PASSWORD", "value": "hunter3"}],
        "prologue": ["export API_KEY=hunter4", "module load python"],
    }
    settings = {"class": "tests.runner.test_named_cluster.TalkativeCluster", "arguments": secrets}
    with pytest.raises(ClusterError) as caught, open_client(settings):
        pass
    assert "refused" in str(caught.value)
    assert "module load python" in str(caught.value)
    assert "hunter" not in str(caught.value)


class TalkativeCluster:
    """Says its secrets."""

    def __init__(self, **arguments: object) -> None:
        try:
            raise KeyError("unknown")
        except KeyError:
            raise ValueError(f"refused: {arguments}") from None

    def scale(self) -> None: ...

    adapt = close = scale


@pytest.mark.slow
def test_the_model_runs_only_where_its_resources_are(
    dask_commands: DaskCommands, photographs: Path, tmp_path: Path
) -> None:
    dask_commands.add_worker("--name", "plain")
    recipe = Recipe(max_width=100, max_height=100, enhance="sharpen")
    with dask_commands.connect(1) as client:
        settings = {
            "scheduler_file": str(dask_commands.scheduler_file),
            "enhance_resources": {"GPU": 1},
            "patience_s": 1,
        }
        failed = pipeline.run(photographs, tmp_path / "out", recipe, cluster=settings).wait()
        assert (failed.status, failed.stored) == ("failed", 0)
        assert "none of the 1 workers" in failed.error
        assert "dask worker --resources 'GPU=1'" in failed.error
        # What asks for no model needs no such worker.
        assert pipeline.run(photographs, tmp_path / "plain", SMALL, cluster=settings).wait().stored == 40

        dask_commands.add_worker("--name", "fast", "--resources", "GPU=1")
        client.wait_for_workers(2, timeout=60)
        name_by_address = {address: worker["name"] for address, worker in client.scheduler_info()["workers"].items()}
        client.get_task_stream()  # it is kept from now on
        assert pipeline.run(photographs, tmp_path / "out", recipe, cluster=settings).wait().stored == 40
        ran = {(key_split(task["key"]), name_by_address[task["worker"]]) for task in client.get_task_stream()}
    assert {worker for stage, worker in ran if stage == "enhance"} == {"fast"}
    assert "plain" in {worker for stage, worker in ran if stage == "resize"}


@pytest.mark.slow
def test_a_worker_that_never_comes_is_waited_for_no_longer_than_the_settings_say() -> None:
    settings = LOCAL | {"patience_s": 0.5}
    with open_client(settings) as client:
        with pytest.raises(ClusterError, match=r"no worker of .* came within 0\.5 s"):
            await_workers(client, {}, threading.Event())
        given_up = threading.Event()
        given_up.set()
        await_workers(client, {}, given_up)
