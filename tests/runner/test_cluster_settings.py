"""What a user may say of his cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SettingsError
from pipeline.runner.cluster_settings import ClusterSpec, has_resources, parse_settings, read_cluster

HERE = Path("/nowhere")
A_CLASS = {"class": "dask_jobqueue.SLURMCluster"}


def test_what_is_no_file_is_an_address() -> None:
    assert read_cluster("tls://10.0.0.1:8786") == ClusterSpec("tls://10.0.0.1:8786", address="tls://10.0.0.1:8786")


def test_a_scheduler_file_holds_the_address(tmp_path: Path) -> None:
    path = tmp_path / "scheduler.json"
    path.write_text(json.dumps({"type": "Scheduler", "address": "tcp://10.0.0.1:1234"}))
    assert read_cluster(path).address == "tcp://10.0.0.1:1234"
    (tmp_path / "cluster.toml").write_text('scheduler_file = "scheduler.json"')
    assert read_cluster(tmp_path / "cluster.toml").address == "tcp://10.0.0.1:1234"


@pytest.mark.parametrize("name", ["missing.json", "missing.toml", "broken.json", "broken.toml", "list.json"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "broken.toml").write_text("class = ")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(SettingsError, match=name):
        read_cluster(str(tmp_path / name))


def test_a_class_has_arguments_and_a_size() -> None:
    spec = parse_settings(A_CLASS | {"maximum": 40, "arguments": {"cores": 8}}, HERE, "c.toml")
    assert (spec.class_name, spec.arguments, spec.minimum, spec.maximum) == (A_CLASS["class"], {"cores": 8}, 1, 40)
    assert parse_settings(A_CLASS | {"workers": 8}, HERE, "c.toml").workers == 8
    assert parse_settings(A_CLASS | {"minimum": 0, "maximum": 8}, HERE, "c.toml").minimum == 0


def test_arguments_are_not_shown() -> None:
    spec = parse_settings(A_CLASS | {"arguments": {"password": "hunter2"}}, HERE, "c.toml")
    assert "hunter2" not in repr(spec)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "one of class, address and scheduler_file"),
        ({"class": "a.B", "address": "tcp://h:1"}, "one of class, address and scheduler_file"),
        ({"class": 7}, "as a string"),
        (A_CLASS | {"minimun": 1}, "unknown minimun; allowed are class, address"),
        (A_CLASS | {"workers": 0}, "workers is 0; allowed is a whole number of at least 1"),
        (A_CLASS | {"workers": True}, "workers is True"),
        (A_CLASS | {"workers": 2, "maximum": 3}, "either workers, or maximum"),
        (A_CLASS | {"minimum": 2}, "either workers, or maximum"),
        (A_CLASS | {"minimum": 5, "maximum": 3}, "minimum is 5, maximum 3"),
        (A_CLASS | {"arguments": 7}, "arguments has to be a table"),
        (A_CLASS | {"patience_s": 0}, "patience_s is 0"),
        (A_CLASS | {"enhance_resources": {"GPU": "one"}}, "names with amounts"),
        ({"address": "tcp://h:1", "maximum": 3}, "maximum only go with class"),
        (A_CLASS | {"security": {"ca": "x"}}, "unknown ca; allowed are ca_file, client_cert, client_key"),
        (A_CLASS | {"security": {"ca_file": "c.pem"}}, "where there is no file"),
    ],
)
def test_what_means_nothing_is_named_with_what_is_allowed(content: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_settings(content, HERE, "c.toml")


def test_certificates_are_beside_the_file(tmp_path: Path) -> None:
    for name in ("ca.pem", "client.pem", "client.key"):
        (tmp_path / name).touch()
    (tmp_path / "cluster.toml").write_text(
        'address = "tls://h:1"\n[security]\nca_file = "ca.pem"\nclient_cert = "client.pem"\nclient_key = "client.key"\n'
    )
    tls = read_cluster(tmp_path / "cluster.toml").tls
    assert tls is not None
    assert tls.client_key == tmp_path / "client.key"


@pytest.mark.parametrize(
    ("there", "needed", "is_enough"),
    [
        ({}, {}, True),
        ({"GPU": 1}, {"GPU": 1.0}, True),
        ({"GPU": 1}, {"GPU": 2}, False),
        ({"CPU": 9}, {"GPU": 1}, False),
    ],
)
def test_a_worker_needs_as_much_of_everything(
    there: dict[str, float], needed: dict[str, float], is_enough: bool
) -> None:
    assert has_resources(there, needed) is is_enough
