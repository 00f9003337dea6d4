"""What the scheduler keeps of the runs that are announced to it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Progress
from pipeline.interfaces.dashboard.board import KEEP_ENDED_S, MAX_POINTS, MAX_RUNS, Board, SpeedHistory


def progress(job_id: str = "1", status: Any = "processing", **fields: Any) -> Progress:
    return Progress(job_id, status, **fields)


def ids(board: Board, now_s: float, clients: tuple[str, ...] = ("c",)) -> list[str]:
    return [run.progress.job_id for run in board.runs(clients, now_s)]


def test_runs_that_go_on_come_first_and_the_newest_of_them_before_all() -> None:
    board = Board()
    for job_id in ("1", "2", "3"):
        board.hear("c", progress(job_id), 0)
    board.hear("c", progress("3", "completed"), 1)
    assert ids(board, 1) == ["2", "1", "3"]


def test_a_run_whose_client_is_gone_is_stalled_and_an_ended_one_stays_as_it_ended() -> None:
    board = Board()
    board.hear("c", progress("1"), 0)
    board.hear("c", progress("2", "completed"), 0)
    statuses = {run.progress.job_id: run.progress.status for run in board.runs([], 1)}
    assert statuses == {"1": "stalled", "2": "completed"}


def test_a_job_that_is_resumed_starts_a_new_line() -> None:
    board = Board()
    board.hear("c", progress("1", images_per_second=5), 0)
    board.hear("c", progress("1", "cancelled"), 1)
    board.hear("d", progress("1", images_per_second=7), 100)
    (run,) = board.runs(["d"], 100)
    assert run.progress.status == "processing"
    assert run.speed.points == [(100, 7)]


def test_ended_runs_are_forgotten_after_a_while_and_running_ones_never() -> None:
    board = Board()
    board.hear("c", progress("1"), 0)
    board.hear("c", progress("2", "failed"), 0)
    assert ids(board, KEEP_ENDED_S) == ["1", "2"]
    assert ids(board, KEEP_ENDED_S + 1) == ["1"]


def test_of_many_ended_runs_the_oldest_are_forgotten() -> None:
    board = Board()
    for number in range(2 * MAX_RUNS):
        board.hear("c", progress(str(number), "completed"), number)
    assert ids(board, 2 * MAX_RUNS) == [str(number) for number in reversed(range(MAX_RUNS, 2 * MAX_RUNS))]


def test_a_run_that_was_over_at_once_has_its_average_for_a_line() -> None:
    board = Board()
    board.hear("c", progress(), 9)
    board.hear("c", progress(status="completed", seconds=2, images_per_second=30), 10)
    (run,) = board.runs([], 10)
    assert run.speed.points == [(8, 30), (10, 30)]


@given(gaps=st.lists(st.floats(0.01, 100), min_size=1, max_size=3000))
def test_a_history_stays_short_and_in_order_from_its_first_point(gaps: list[float]) -> None:
    history, now_s = SpeedHistory(), 0.0
    for gap in gaps:
        now_s += gap
        history.add(now_s, 1.0)
        assert len(history.points) <= MAX_POINTS
    times = [time_s for time_s, _ in history.points]
    assert times == sorted(times)
    assert times[0] == pytest.approx(gaps[0])


def test_a_long_history_covers_all_of_its_time_evenly() -> None:
    history = SpeedHistory()
    for half_second in range(40_000):
        history.add(half_second / 2, half_second)
    times = [time_s for time_s, _ in history.points]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) > MAX_POINTS / 4
    assert times[-1] > 0.99 * 20_000
    assert max(gaps) <= 4 * min(gaps)
