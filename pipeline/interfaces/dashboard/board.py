"""The runs that a scheduler works for or has worked for lately, as their drivers announce them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final

from pipeline.domain import Progress

# An ended run stays as long as somebody who was away for a coffee may want to see how it ended.
KEEP_ENDED_S: Final = 900.0
MAX_RUNS: Final = 30

MAX_POINTS: Final = 600


@dataclass(slots=True)
class SpeedHistory:
    """Images per second over time, in so few points that a run of days is drawn as quickly as one of minutes.

    Attributes
    ----------
    points : list of (float, float)
        Seconds since the epoch, images per second.
    spacing_s : float
        Points that come sooner after the one before are left out; it doubles whenever there are too many.
    """

    points: list[tuple[float, float]] = field(default_factory=list)
    spacing_s: float = 0.0

    def add(self, time_s: float, images_per_second: float) -> None:
        """Add a point, if it is time for one."""
        if self.points and time_s - self.points[-1][0] < self.spacing_s:
            return
        self.points.append((time_s, images_per_second))
        if len(self.points) > MAX_POINTS:
            self.spacing_s = 2 * (self.points[-1][0] - self.points[0][0]) / len(self.points)
            self.points = self.points[::2]


@dataclass(slots=True)
class Run:
    """One run of a job, as far as it was announced.

    Attributes
    ----------
    progress : Progress
        The latest snapshot; `stalled` if its driver is gone without a last one.
    client_id : str
        The Dask client of its driver.
    number : int
        Counts the runs in the order in which they were first heard of.
    heard_at_s : float
        Seconds since the epoch.
    """

    progress: Progress
    client_id: str
    number: int
    heard_at_s: float
    speed: SpeedHistory = field(default_factory=SpeedHistory)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.progress.is_finished or self.progress.status == "stalled"


class Board:
    """Keeps the latest snapshot and the speed of each run; forgets those that ended long ago."""

    def __init__(self) -> None:
        self._run_by_job: dict[str, Run] = {}
        self._heard_of = 0

    def hear(self, client_id: str, progress: Progress, now_s: float) -> None:
        """Take a snapshot in that a driver has announced."""
        run = self._run_by_job.get(progress.job_id)
        if run is None or run.has_ended or run.client_id != client_id:
            run = Run(progress, client_id, self._heard_of, now_s)
            self._heard_of += 1
            self._run_by_job[progress.job_id] = run
            self._forget(now_s)
        run.progress, run.heard_at_s = progress, now_s
        if not progress.is_finished:
            run.speed.add(now_s, progress.images_per_second)
        elif progress.seconds and not any(speed for _, speed in run.speed.points):
            # It was over before its speed was known: the average is all there is.
            run.speed.points = [(time_s, progress.images_per_second) for time_s in (now_s - progress.seconds, now_s)]

    def runs(self, client_ids: Collection[str], now_s: float) -> list[Run]:
        """Return the runs, those that go on first, the newest first.

        Parameters
        ----------
        client_ids : collection of str
            The clients that are connected: the driver of a run whose client is not among them is gone.
        now_s : float
            Seconds since the epoch.
        """
        self._forget(now_s)
        for run in self._run_by_job.values():
            if not run.has_ended and run.client_id not in client_ids:
                run.progress = replace(run.progress, status="stalled", images_per_second=0.0, eta_seconds=None)
        return sorted(self._run_by_job.values(), key=lambda run: (run.has_ended, -run.number))

    def _forget(self, now_s: float) -> None:
        ended = [job for job, run in self._run_by_job.items() if run.has_ended]
        ended.sort(key=lambda job: self._run_by_job[job].heard_at_s)
        surplus = len(self._run_by_job) - MAX_RUNS
        for place, job in enumerate(ended):
            if place < surplus or now_s - self._run_by_job[job].heard_at_s > KEEP_ENDED_S:
                del self._run_by_job[job]
