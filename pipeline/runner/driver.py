"""The driver: submits a job's batches, and alone writes its ledger and its state.

What to do is decided in `core`; here it is done. Everything that happens (a task ended, somebody cancelled, the
lease is lost) comes in through one queue, and one thread acts on it.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Final

from distributed import Client, Future, KilledWorker

from pipeline.domain import Item, Job, JobStatus, Outcome, Progress, Stage
from pipeline.errors import ClusterError, LeaseLostError, PipelineError, WorkerLostError
from pipeline.runner.cluster import count_threads
from pipeline.runner.core import Batch, RunCore
from pipeline.runner.images import Equipment
from pipeline.runner.ledger import Ledger
from pipeline.runner.reporter import Reporter
from pipeline.runner.seen import SeenKeys
from pipeline.runner.tasks import TASKS, EquipWorker, task_key
from pipeline.state import Lease

FLUSH_INTERVAL_S: Final = 3.0
REPORT_INTERVAL_S: Final = 0.1

# How long a cancelled run waits for the images that are in the workers' hands.
CANCEL_GRACE_S: Final = 1.5

# A longer collection is counted beside the run, so that its first images need not wait for its last name.
PEEK_ITEMS: Final = 2000

# A fetch leaves its thread at once, so it goes before all computing: that is what keeps the fetches ahead.
FETCH_PRIORITY: Final = 10


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A task has ended, well or not."""

    batch_number: int
    stage: Stage
    future: Future


@dataclass(frozen=True, slots=True)
class Counted:
    """The collection has been counted."""

    total: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants the run to stop."""


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """Another driver has taken the job over."""


Event = TaskEnded | Counted | CancelRequested | LeaseTaken


class Driver:
    """One run of a job, from its lease to its last snapshot.

    Parameters
    ----------
    job : Job
    items : iterable of Item
        What is to be done, in order; read lazily, and twice if it is long.
    lease : Lease
        The right to write the job's state; given back at the end.
    before : Progress
        The job's last snapshot: what stays of it are its id and the time it was created.
    connect : callable
        Returns the context manager of a `distributed.Client`.
    storage_options : mapping, optional
        As in fsspec.
    equipment_type : type, optional
        What the workers handle images with; the benchmark puts empty stages here.
    """

    def __init__(
        self,
        job: Job,
        items: Iterable[Item],
        lease: Lease,
        before: Progress,
        connect: Callable[[], AbstractContextManager[Client]],
        storage_options: Mapping[str, Any] | None = None,
        equipment_type: type[Equipment] = Equipment,
    ) -> None:
        self.job = job
        self._items = items
        self._lease = lease
        self._before = before
        self._connect = connect
        self._storage_options = storage_options
        self._equipment_type = equipment_type
        self._ledger = Ledger(job.destination, job.id, storage_options)
        # Tells the tasks of this run from those of an earlier one that the scheduler may still know.
        self._run_id = uuid.uuid4().hex[:12]
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._unwritten: list[Outcome] = []
        self._futures: dict[int, dict[Stage, Future]] = {}
        self._core: RunCore | None = None

    def cancel(self) -> None:
        """Ask the run to stop; from any thread."""
        self._events.put(CancelRequested())

    def run(self) -> None:
        """Drive the job to its end and publish it; what makes the whole job fail is in its state, not raised."""
        reporter = Reporter(self._lease, self.cancel, lambda: self._events.put(LeaseTaken()))
        last: Progress | None = replace(
            self._snapshot("failed"), error="the driver ended unexpectedly; please report this with its traceback"
        )
        try:
            reporter.report(self._snapshot("processing"))
            # The ledger's first conversion imports pandas, half a second of work: better while the workers start.
            threading.Thread(target=importlib.import_module, args=["pandas"], name="pipeline-import").start()
            with self._connect() as client:
                last = self._run_on(client, reporter)
                # Before the cluster is closed: nobody is to wait for that.
                reporter.close(last)
        except LeaseLostError:
            last = None
        except PipelineError as error:
            last = replace(self._snapshot("failed"), error=str(error))
        finally:
            reporter.close(last)

    def _run_on(self, client: Client, reporter: Reporter) -> Progress:
        with SeenKeys() as seen, self._equipped(client):
            before = self._ledger.tally(self._before, seen)
            core = self._core = RunCore(self.job.recipe.stages, count_threads(client), before, time.monotonic())
            items = (item for item in self._items if seen.add(item.key))
            head = list(itertools.islice(items, PEEK_ITEMS))
            if len(head) < PEEK_ITEMS:
                core.total = before.done + len(head)
            else:
                threading.Thread(target=self._count, name="pipeline-counter", daemon=True).start()
            return self._loop(core, client, itertools.chain(head, items), reporter)

    def _loop(self, core: RunCore, client: Client, items: Iterator[Item], reporter: Reporter) -> Progress:
        flushed_at = reported_at = time.monotonic()
        cancelled_at: float | None = None
        while not core.is_over:
            self._feed(core, client, items)
            self._handle(core, client, self._next_events())
            now = time.monotonic()
            if core.is_cancelled:
                cancelled_at = cancelled_at or now
                if now - cancelled_at > CANCEL_GRACE_S:
                    core.drop_in_flight()
            if now - reported_at > REPORT_INTERVAL_S:
                reporter.report(core.snapshot("processing", now))
                reported_at = now
            if now - flushed_at > FLUSH_INTERVAL_S:
                self._flush()
                flushed_at = now
        self._flush()
        is_incomplete = core.is_cancelled and core.done != core.total
        return core.snapshot("cancelled" if is_incomplete else "completed", time.monotonic())

    def _feed(self, core: RunCore, client: Client, items: Iterator[Item]) -> None:
        if suspect := core.next_suspect():
            self._submit(client, suspect)
        while core.wants_items:
            if batch := list(itertools.islice(items, core.next_batch_size)):
                self._submit(client, core.start(batch))
            else:
                core.is_exhausted = True
                core.total = core.done + core.pending

    def _submit(self, client: Client, batch: Batch) -> None:
        upstream: Any = batch.items
        futures = self._futures[batch.number] = {}
        for stage in self.job.recipe.stages:
            future = upstream = futures[stage] = client.submit(
                TASKS[stage],
                self._run_id,
                upstream,
                key=task_key(stage, self.job.id, self._run_id, batch.number),
                priority=FETCH_PRIORITY if stage == "fetch" else 0,
                pure=False,
            )
            future.add_done_callback(lambda done, stage=stage: self._events.put(TaskEnded(batch.number, stage, done)))

    def _next_events(self) -> list[Event]:
        """Wait for an event, for a moment; return it with all that have come since."""
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=REPORT_INTERVAL_S))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def _handle(self, core: RunCore, client: Client, events: list[Event]) -> None:
        stored: dict[int, Future] = {}
        for event in events:
            match event:
                case TaskEnded(number, stage, future) if number in self._futures:
                    if future.status == "finished" and stage == "store":
                        stored[number] = future
                    elif future.status == "finished":
                        # Dask keeps the result as long as a later task needs it; we need it no more.
                        del self._futures[number][stage]
                        core.finish_stage(number, stage)
                    elif stage == "store":
                        self._handle_loss(core, client, number)
                case Counted(total):
                    core.total = total
                case CancelRequested():
                    core.is_cancelled = True
                case LeaseTaken():
                    raise LeaseLostError(f"another driver has taken job {self.job.id!r} over")
        for number, outcomes in client.gather(stored, errors="skip").items():
            if outcomes is None:
                self._handle_loss(core, client, number)
                continue
            del self._futures[number]
            core.finish_batch(number, outcomes)
            self._unwritten += outcomes

    def _handle_loss(self, core: RunCore, client: Client, number: int) -> None:
        futures = self._futures.pop(number)
        failed = next(((stage, future) for stage, future in futures.items() if future.status == "error"), None)
        if client.status != "running" or failed is None:
            raise ClusterError(
                "the Dask scheduler is gone; what was stored is in the ledger, and the job can be resumed"
            )
        stage, future = failed
        error = future.exception()
        if isinstance(error, KilledWorker):
            error = WorkerLostError(f"a worker process died while it was in {stage}")
        self._unwritten += core.lose_batch(number, stage, error, time.time())

    @contextlib.contextmanager
    def _equipped(self, client: Client) -> Iterator[None]:
        """Have every worker make the job's Equipment before its first task, and drop it at the end."""
        plugin = EquipWorker(self._run_id, self.job, self._storage_options, self._equipment_type)
        try:
            client.register_plugin(plugin)
        except ImportError as error:
            raise ClusterError(f"the workers cannot import the pipeline package: {error}; install it there") from error
        try:
            yield
        finally:
            self._futures.clear()
            if client.status == "running":
                client.unregister_worker_plugin(self._run_id)

    def _flush(self) -> None:
        if self._unwritten:
            self._ledger.append(self._unwritten, self.job.recipe.fingerprint)
            self._unwritten = []

    def _snapshot(self, status: JobStatus) -> Progress:
        if self._core:
            return self._core.snapshot(status, time.monotonic())
        return replace(self._before, status=status, error="")

    def _count(self) -> None:
        self._events.put(Counted(sum(1 for _ in self._items)))
