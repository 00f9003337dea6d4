"""The settings files of the document on clusters: each is one."""

from __future__ import annotations

import contextlib
import importlib
import re
import tomllib
from pathlib import Path

import pytest

from pipeline.runner.cluster_settings import parse_settings
from pipeline.runner.named_cluster import find_class

DOCUMENT = (Path(__file__).parents[1] / "docs" / "clusters.md").read_text("utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: re.search(r'class = "(.*?)"', example)[1])
def test_the_settings_of_the_document_are_allowed(example: str, tmp_path: Path) -> None:
    for name in ("ca.pem", "client.pem", "client.key"):
        (tmp_path / name).touch()
    content = tomllib.loads(example)
    spec = parse_settings(content, tmp_path, "cluster.toml")
    assert spec.class_name == content["class"]
    assert spec.arguments == content["arguments"]
    with contextlib.suppress(ModuleNotFoundError):
        # Where the package of the class is installed, the class is in it.
        importlib.import_module(spec.class_name.partition(".")[0])
        assert callable(find_class(spec))


def test_the_document_has_an_example_for_each_kind() -> None:
    assert len(EXAMPLES) == 5
