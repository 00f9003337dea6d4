"""One image through the stages, and what the ledger tells of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fsspec.asyn import get_loop, sync

from pipeline.domain import FetchPolicy, Item, Job, Recipe
from pipeline.runner.images import Equipment
from pipeline.runner.ledger import Ledger
from tests.fixtures.web import Reply, Web


@pytest.mark.parametrize(
    ("tag", "body", "respects", "status", "error"),
    [
        ("noai, nofollow", "photograph", True, "failed", "RobotsError"),
        ("noai, nofollow", "photograph", False, "stored", ""),
        ("nofollow", "photograph", True, "stored", ""),
        ("nofollow", "nonsense", True, "failed", "NotAnImageError"),
        ("", "photograph", True, "stored", ""),
    ],
)
def test_the_ledger_has_what_the_server_says_to_robots(
    web: Web, photographs: Path, tmp_path: Path, tag: str, body: str, respects: bool, status: str, error: str
) -> None:
    data = next(photographs.rglob("*.jpg")).read_bytes() if body == "photograph" else body.encode()
    url = web.reply("/a.jpg", Reply(data, headers={"X-Robots-Tag": tag} if tag else {}))
    policy = FetchPolicy(allow_private=True, respect_robots=respects)
    equipment = Equipment(Job("1", url, str(tmp_path), Recipe(max_width=50, enhance=None), policy))
    try:
        outcome = equipment.finish(sync(get_loop(), equipment.fetch, Item("a", url)))
    finally:
        sync(get_loop(), equipment.aclose)
    ledger = Ledger(str(tmp_path), "1")
    ledger.append([outcome], "f00d")
    (row,) = ledger.read().to_pylist()
    assert (row["status"], row["error"], row["robots"]) == (status, error, tag)
