"""What the driver decides, without any I/O: events in, decisions out.

The driver reads Items, submits batches and writes state; which, when and what is decided here, so that it can be
tested without a cluster. Time comes in as an argument.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pipeline.domain import Failure, Item, JobStatus, Outcome, Progress, Result, Stage
from pipeline.urls import redact

# Items that have lost their worker are made in a sandbox, which tells of which one it dies. A worker may be lost even
# then, for reasons of its own: after so many times, an Item is alone in its batch, and after so many it is blamed.
SUSPECTS_IN_BATCH: Final = 4
LOSSES_IN_COMPANY: Final = 2
MAX_LOSSES_IN_SANDBOX: Final = 5

# The tasks of a batch cost driver and scheduler some thirty milliseconds in all: little beside half a second of work.
BATCH_WORK_S: Final = 0.5

# What a batch has fetched waits in memory too: of large files, a batch has few.
BATCH_BYTES: Final = 128 * 2**20

# The decoded images of a batch wait in memory between stages: 32 of 1024 x 768 are 75 MB.
MAX_BATCH: Final = 32

# Batches in flight for a worker thread: one that computes, the others fetching ahead.
BATCHES_PER_THREAD: Final = 4

# Seconds over which the live speed is taken.
SPEED_WINDOW_S: Final = 10.0


@dataclass(slots=True)
class Batch:
    """Items that one chain of tasks handles together; in a sandbox, if they have lost their worker before."""

    number: int
    items: Sequence[Item]
    is_suspect: bool = False
    stages_done: list[Stage] = field(default_factory=list)


class RunCore:
    """The state of one run of a job.

    Parameters
    ----------
    stages : sequence of {"fetch", "resize", "enhance", "store"}
        The stages that the Recipe asks for.
    threads : int
        Worker threads in the cluster.
    before : Progress
        The job as earlier runs left it: its counts go on from there.
    started_at_s : float
        The time at which this run begins, in seconds of any clock; later times are of the same clock.
    suspect_keys : collection of str
        Of Items that have lost their worker in an earlier run.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        threads: int,
        before: Progress,
        started_at_s: float,
        suspect_keys: Collection[str] = (),
    ) -> None:
        self.threads = threads
        self.is_cancelled = False
        self.is_exhausted = False
        self.total: int | None = None
        # Items that wait for what becomes of an original, see `Contents`.
        self.n_waiting = 0
        self._stages = tuple(stages)
        self._before = before
        self._in_flight: dict[int, Batch] = {}
        self._suspects: deque[Item] = deque()
        # Of what has lost its worker in any run of the job, which no other worker is to be lost to.
        self.suspect_keys = set(suspect_keys)
        self._losses_in_sandbox: Counter[str] = Counter()
        self._next_number = 0
        self._status = Counter({"stored": before.stored, "skipped": before.skipped, "failed": before.failed})
        self._done_by_stage = Counter(dict.fromkeys(self._stages, before.done))
        self._failed_by_stage = Counter(before.failed_by_stage)
        self._failed_by_error = Counter(before.failed_by_error)
        self._seconds_by_stage = Counter(before.seconds_by_stage)
        self._bytes_in, self._bytes_out = before.bytes_in, before.bytes_out
        self._duplicates = before.duplicates
        self._worked_s, self._worked_items, self._worked_bytes = 0.0, 0, 0
        self._last_outcome: Outcome | None = None
        self.start_clock(started_at_s)

    @property
    def job_id(self) -> str:
        """The job that is run."""
        return self._before.job_id

    @property
    def has_news(self) -> bool:
        """Whether this run has done anything."""
        return self.done > self._before.done

    @property
    def done(self) -> int:
        """Items with an Outcome, earlier runs included."""
        return self._status.total()

    @property
    def pending(self) -> int:
        """Items that have been read and have no Outcome yet."""
        return sum(len(batch.items) for batch in self._in_flight.values()) + len(self._suspects) + self.n_waiting

    def start_clock(self, now_s: float) -> None:
        """Take the time from now on, if nothing has been done: that in which the workers start is not the run's."""
        if self.has_news:
            return
        self._started_at_s = now_s
        self._samples: deque[tuple[float, int]] = deque([(now_s, self._before.done)])

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to wait for."""
        is_done = self.is_exhausted and not self._suspects and not self.n_waiting
        return not self._in_flight and (self.is_cancelled or is_done)

    @property
    def wants_items(self) -> bool:
        """Whether the driver is to read the next Items of the collection and start them."""
        # Where workers die faster than they work, what waits for a sandbox is not to become the whole collection.
        is_open = len(self._suspects) < MAX_BATCH * self._window
        return is_open and not (self.is_cancelled or self.is_exhausted) and len(self._in_flight) < self._window

    @property
    def _window(self) -> int:
        return BATCHES_PER_THREAD * self.threads

    @property
    def next_batch_size(self) -> int:
        """How many Items the next batch is to have.

        Batches grow from one image, so that the first results show soon, to half a second of work, so that what a task
        costs Dask is little beside it; and become small towards the end, so that all threads end together.
        """
        growing: int = 4 ** min(5, self._next_number // self.threads)
        affordable = BATCH_WORK_S * self._worked_items / self._worked_s if self._worked_s else MAX_BATCH
        bearable = BATCH_BYTES * self._worked_items / self._worked_bytes if self._worked_bytes else MAX_BATCH
        left = math.inf if self.total is None else self.total - self.done - self.pending
        return max(1, round(min(MAX_BATCH, growing, affordable, bearable, left / (2 * self.threads))))

    def start(self, items: Sequence[Item]) -> Batch | None:
        """Begin a batch, which the driver is to submit; None if all of its Items wait for the sandbox."""
        self._suspects.extend(item for item in items if item.key in self.suspect_keys)
        unsuspected = [item for item in items if item.key not in self.suspect_keys]
        return self._begin(unsuspected, is_suspect=False) if unsuspected else None

    def start_suspects(self) -> Batch | None:
        """Begin a batch of Items that have lost their worker; None if there are none, or no more are to begin now.

        There is one for each thread at most, so that few are lost with a worker that is lost for another reason.
        """
        n_running = sum(batch.is_suspect for batch in self._in_flight.values())
        if self.is_cancelled or n_running >= self.threads or len(self._in_flight) >= self._window:
            return None
        items: list[Item] = []
        while self._suspects and len(items) < SUSPECTS_IN_BATCH:
            is_alone = self._losses_in_sandbox[self._suspects[0].key] >= LOSSES_IN_COMPANY
            if not (is_alone and items):
                items.append(self._suspects.popleft())
            if is_alone:
                break
        return self._begin(items, is_suspect=True) if items else None

    def _begin(self, items: Sequence[Item], *, is_suspect: bool) -> Batch:
        batch = Batch(self._next_number, items, is_suspect)
        self._next_number += 1
        self._in_flight[batch.number] = batch
        return batch

    def finish_stage(self, number: int, stage: Stage) -> None:
        """Note that a batch has left a stage."""
        if batch := self._in_flight.get(number):
            batch.stages_done.append(stage)
            self._done_by_stage[stage] += len(batch.items)

    def finish_batch(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Note what became of a batch, and of Items that have waited for it."""
        batch = self._in_flight.pop(number)
        if batch.is_suspect:
            # Those that are to blame stay suspect: they may be tried again.
            failed = {outcome.item.key for outcome in outcomes if outcome.failure}
            self.suspect_keys -= {item.key for item in batch.items} - failed
        for stage in self._stages:
            if stage not in batch.stages_done:
                self._done_by_stage[stage] += len(batch.items)
        self._worked_items += len(batch.items)
        for outcome in outcomes:
            self._worked_bytes += outcome.bytes_in
            self._worked_s += sum(seconds for stage, seconds in outcome.seconds.items() if stage != "fetch")
        self._note(outcomes)

    def skip(self, outcomes: Sequence[Outcome]) -> None:
        """Note Items that need no work."""
        for stage in self._stages:
            self._done_by_stage[stage] += len(outcomes)
        self._note(outcomes)

    def _note(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._last_outcome = outcome
            self._status[outcome.status] += 1
            self._duplicates += bool(outcome.duplicate_of)
            self._bytes_in += outcome.bytes_in
            # What was there already was not written.
            self._bytes_out += outcome.bytes_out if outcome.status == "stored" else 0
            self._seconds_by_stage.update(outcome.seconds)
            if outcome.failure:
                self._failed_by_stage[outcome.failure.stage] += 1
                self._failed_by_error[outcome.failure.error] += 1

    def lose_batch(self, number: int, stage: Stage, error: BaseException, ended_at: float) -> Outcome | None:
        """Note that a batch ended in `stage` without Outcomes, most often because its worker died.

        Parameters
        ----------
        number : int
        stage : {"fetch", "resize", "enhance", "store"}
        error : BaseException
            What ended it.
        ended_at : float
            Seconds since the epoch.

        Returns
        -------
        Outcome or None
            The failed Outcome of an Item that was alone in a sandbox and has been lost often enough to be blamed, with
            which the batch is to be finished; None while its Items are to be tried again, in a sandbox.
        """
        batch = self._in_flight[number]
        self.suspect_keys.update(item.key for item in batch.items)
        if batch.is_suspect:
            self._losses_in_sandbox.update(item.key for item in batch.items)
            item = batch.items[0]
            if len(batch.items) == 1 and self._losses_in_sandbox[item.key] >= MAX_LOSSES_IN_SANDBOX:
                failure = Failure.from_error(stage, error, subject=redact(item.url))
                return Outcome(item, "failed", failure=failure, finished_at=ended_at)
        del self._in_flight[number]
        for stage in batch.stages_done:
            self._done_by_stage[stage] -= len(batch.items)
        self._suspects.extend(batch.items)
        return None

    def drop_in_flight(self) -> None:
        """Give up what is in flight: a cancelled run leaves it to whoever resumes the job."""
        for batch in self._in_flight.values():
            for stage in batch.stages_done:
                self._done_by_stage[stage] -= len(batch.items)
        self._in_flight.clear()

    def snapshot(self, status: JobStatus, now_s: float) -> Progress:
        """Return the run as it is now.

        The speed of a run that goes on is that of the last seconds; of one that has ended, its mean.
        """
        done_here = self.done - self._before.done
        seconds = now_s - self._started_at_s
        self._samples.append((now_s, self.done))
        while len(self._samples) > 2 and now_s - self._samples[0][0] > SPEED_WINDOW_S:
            self._samples.popleft()
        if status == "processing":
            (then_s, then_done), span_done = self._samples[0], self.done - self._samples[0][1]
            speed = span_done / (now_s - then_s) if now_s > then_s and then_done < self.done else 0.0
        else:
            speed = done_here / seconds if seconds > 0 else 0.0
        left = None if self.total is None else max(0, self.total - self.done)
        return replace(
            self._before,
            status=status,
            total=self.total,
            stored=self._status["stored"],
            skipped=self._status["skipped"],
            failed=self._status["failed"],
            done_by_stage={stage: self._done_by_stage[stage] for stage in self._stages},
            failed_by_stage=dict(self._failed_by_stage),
            failed_by_error=dict(self._failed_by_error),
            seconds_by_stage=dict(self._seconds_by_stage),
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            duplicates=self._duplicates,
            seconds=seconds,
            images_per_second=speed,
            eta_seconds=left / speed if left is not None and speed > 0 and status == "processing" else None,
            error="",
            result=self._only_result(),
        )

    def _only_result(self) -> Result | None:
        outcome = self._last_outcome
        if self.total != 1 or outcome is None or not outcome.output:
            return self._before.result
        return Result(outcome.output, outcome.width, outcome.height, outcome.channels)
