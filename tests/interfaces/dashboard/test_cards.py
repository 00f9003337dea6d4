"""What is said of a run: pure functions from a snapshot and the scheduler's tasks."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.display.style import COLOUR_BY_STAGE
from pipeline.domain import Progress
from pipeline.errors import MissingError
from pipeline.interfaces.dashboard.board import Run
from pipeline.interfaces.dashboard.cards import REMEDY_IF_UNKNOWN, Card, make_card
from pipeline.interfaces.dashboard.page import Cluster, render_cards
from pipeline.interfaces.dashboard.queue import count_batches, count_tasks
from pipeline.interfaces.dashboard.speed import lines_of, span_of
from pipeline.runner.announcer import from_event, to_event

HALF = Progress(
    "7-night",
    "processing",
    total=4000,
    stored=1190,
    failed=10,
    done_by_stage={"fetch": 1500, "resize": 1300, "store": 1200},
    failed_by_stage={"fetch": 10},
    failed_by_error={"MissingError": 9, "StrangeError": 1},
    seconds_by_stage={"fetch": 30.0, "resize": 60.0, "store": 10.0},
    seconds=20.0,
    images_per_second=60.0,
    eta_seconds=46.0,
)


def card_of(progress: Progress, **states: dict[str, int]) -> Card:
    return make_card(Run(progress, "c", 0, 0.0), count_tasks(states, progress))


def test_bars_say_what_is_done_and_what_has_failed_in_the_stages_of_the_recipe() -> None:
    card = card_of(HALF)
    fetch, resize, store = card.bars
    assert (fetch.stage, fetch.colour, fetch.done, fetch.total) == ("fetch", COLOUR_BY_STAGE["fetch"], "1,500", "4,000")
    assert (fetch.share_done, fetch.share_failed, fetch.failed) == (1490 / 4000, 10 / 4000, "10 failed")
    assert (resize.share_done, resize.failed, store.done) == (1300 / 4000, "", "1,200")
    assert (card.count, card.percent) == ("1,200 / 4,000", "30 %")


def test_facts_say_how_fast_and_how_long() -> None:
    facts = dict(card_of(HALF).facts)
    assert (facts["images/s"], facts["elapsed"], facts["left"], facts["failed"]) == ("60.0", "20.0 s", "46.0 s", "10")
    assert "left" not in dict(card_of(Progress("1", "completed", 2, eta_seconds=5.0, seconds=9)).facts)


def test_while_the_total_is_not_known_bars_claim_no_share() -> None:
    card = card_of(Progress("1", "processing", done_by_stage={"fetch": 5}))
    assert (card.bars[0].share_done, card.bars[0].total, card.percent, card.is_counted) == (0, "?", "", False)


def test_the_parts_of_the_time_add_up() -> None:
    parts = card_of(HALF).parts
    assert [(part.stage, part.share) for part in parts] == [("fetch", 0.3), ("resize", 0.6), ("store", 0.1)]
    assert card_of(Progress("1")).parts == []


def test_failures_come_with_a_remedy_the_most_frequent_first() -> None:
    failures = card_of(HALF).failures
    assert [(failure.error, failure.count, failure.remedy) for failure in failures] == [
        ("MissingError", "9", MissingError.remedy),
        ("StrangeError", "1", REMEDY_IF_UNKNOWN),
    ]


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"status": "stalled"}, "pipeline resume 1"),
        ({"status": "cancelled"}, "pipeline resume 1"),
        ({"status": "failed", "error": "ModelError"}, "ModelError. Why: pipeline status 1"),
        ({"status": "processing"}, "The workers start"),
        ({"status": "completed"}, ""),
    ],
)
def test_a_note_says_what_to_do(fields: dict[str, Any], note: str) -> None:
    found = card_of(Progress("1", **fields)).note
    assert note in found
    assert bool(found) == bool(note)


def test_tasks_are_those_of_the_job_by_stage_and_state() -> None:
    states = {
        "fetch-7-night": {"queued": 2, "no-worker": 1, "processing": 1, "memory": 0, "forgotten": 90, "released": 3},
        "resize-7-night": {"waiting": 4},
        "store-7-night": {"waiting": 3, "processing": 1, "memory": 5},
        "fetch-8-other": {"processing": 7},
    }
    tasks = count_tasks(states, HALF)
    assert [stage.stage for stage in tasks] == ["fetch", "resize", "store"]
    assert tasks[0].counts == {"waiting": 0, "queued": 3, "processing": 1, "memory": 0, "erred": 0}
    assert tasks[1].counts["waiting"] == 4
    assert count_batches(tasks) == 4
    assert count_batches([]) == 0


def test_an_id_that_begins_with_a_letter_finds_its_tasks_too() -> None:
    (fetch,) = count_tasks({"fetch-0-night": {"processing": 2}}, Progress("night", done_by_stage={"fetch": 0}))
    assert fetch.counts["processing"] == 2


def test_the_chart_covers_what_runs_and_fades_what_has_ended() -> None:
    running, ended = Run(HALF, "c", 0, 0.0), Run(Progress("1", "completed"), "c", 1, 0.0)
    ended.speed.points = [(0.0, 9.0), (100.0, 8.0)]
    running.speed.points = [(500.0, 2.0), (900.0, 4.0)]
    lines = lines_of([running, ended], 1000.0)
    assert lines["job"] == ["7-night", "1"]
    assert (lines["xs"][0], lines["ys"][0]) == ([-500.0, -100.0], [2.0, 4.0])
    assert lines["alpha"][0] > lines["alpha"][1]
    assert lines["colour"][0] != lines["colour"][1]
    assert span_of([running, ended], 1000.0) == 500.0
    assert span_of([ended], 1000.0) == 1000.0
    assert span_of([], 1000.0) == 60.0


def test_what_is_rendered_is_escaped() -> None:
    hostile = Progress("<script>alert(1)</script>", "failed", error="<b>", failed_by_error={"<i>": 1})
    html = render_cards(Cluster(1, 1, 0, 0, "0 s"), [card_of(hostile)])
    assert "&lt;script&gt;" in html
    for markup in ("<script", "<b>&lt;", "<i>&lt;", "<i> "):
        assert markup not in html


def test_a_snapshot_survives_its_event() -> None:
    client_id, progress = from_event(to_event(HALF, "c")) or ("", None)
    assert (client_id, progress) == ("c", HALF)
    for foreign in (None, "text", {}, {"client": 1, "job": {}}, {"client": "c", "job": {"status": "processing"}}):
        assert from_event(foreign) is None
