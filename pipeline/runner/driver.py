"""The driver: submits a job's batches, and alone writes its ledger and its state.

What to do is decided in `core`; here it is done. Everything that happens (a task ended, somebody cancelled, the
lease is lost) comes in through one queue, and one thread acts on it.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final

from distributed import Client, Future, KilledWorker

from pipeline.catalogue import ModelCard
from pipeline.domain import Item, Job, JobStatus, Progress, Stage
from pipeline.errors import ClusterError, LeaseLostError, PipelineError, StateError, WorkerLostError
from pipeline.runner.announcer import Announcer
from pipeline.runner.buffer import OutcomeBuffer
from pipeline.runner.cluster import count_threads
from pipeline.runner.core import Batch, RunCore
from pipeline.runner.equipping import equipped
from pipeline.runner.events import (
    CancelRequested,
    Counted,
    Equipped,
    Event,
    EventQueue,
    LeaseTaken,
    LeaveRequested,
    TaskEnded,
    WorkerRefused,
)
from pipeline.runner.images import Equipment
from pipeline.runner.ledger import Ledger
from pipeline.runner.named_cluster import enhance_resources
from pipeline.runner.reporter import Reporter
from pipeline.runner.seen import SeenKeys
from pipeline.runner.sharded import ShardEquipment
from pipeline.runner.shards import ShardBuffer
from pipeline.runner.shown import Shown
from pipeline.runner.tasks import TASKS, EquipWorker, task_key
from pipeline.state import Lease

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S: Final = 3.0

# The reporter thins out what it publishes: together they are to stay below what a person takes for at once.
REPORT_INTERVAL_S: Final = 0.04

# How long a cancelled run waits for the images that are in the workers' hands.
CANCEL_GRACE_S: Final = 1.5

# How long it waits for shards that are being packed: a cluster whose workers have gone packs none.
PACK_GRACE_S: Final = 30.0

# A longer collection is counted beside the run, so that its first images need not wait for its last name.
PEEK_ITEMS: Final = 2000

# A fetch leaves its thread at once, so it goes before all computing: that is what keeps the fetches ahead.
FETCH_PRIORITY: Final = 10


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
    card : ModelCard, optional
        The Recipe's model; None if it asks for none.
    storage_options : mapping, optional
        As in fsspec.
    equipment_type : type, optional
        What the workers handle images with, if not with what the job's output asks for; the benchmark puts empty
        stages here.
    """

    def __init__(
        self,
        job: Job,
        items: Iterable[Item],
        lease: Lease,
        before: Progress,
        connect: Callable[[], AbstractContextManager[Client]],
        card: ModelCard | None = None,
        storage_options: Mapping[str, Any] | None = None,
        equipment_type: type[Equipment] | None = None,
    ) -> None:
        self.job = job
        self._items = items
        self._lease = lease
        self._before = before
        self._connect = connect
        self._card = card
        self._storage_options = storage_options
        self._equipment_type = equipment_type or (ShardEquipment if job.output == "webdataset" else Equipment)
        self._ledger = Ledger(job.destination, job.id, storage_options)
        # Tells the tasks of this run from those of an earlier one that the scheduler may still know.
        self._run_id = uuid.uuid4().hex[:12]
        self._events = EventQueue()
        self._buffer = OutcomeBuffer(self._ledger, job.recipe.fingerprint)
        self._futures: dict[int, dict[Stage, Future]] = {}
        self._core: RunCore | None = None
        self._announcer: Announcer | None = None
        self._is_equipped = False
        self._enhance_resources: Mapping[str, float] = {}
        self._refused: dict[str, str] = {}
        self._is_leaving = False
        self._shown = Shown(before)

    @property
    def latest(self) -> Progress:
        """The run as it is now, whatever Redis knows of it."""
        return self._shown.latest

    def cancel(self) -> None:
        """Ask the run to stop; from any thread."""
        self._events.put(CancelRequested())

    def leave(self) -> None:
        """Ask the run to stop and to leave the job to the next queue worker; from any thread."""
        self._events.put(LeaveRequested())

    def updates(self) -> Iterator[Progress]:
        """Yield the run as it is now, then as it changes, until it has ended; from any thread."""
        return self._shown.updates()

    def run(self) -> None:
        """Drive the job to its end and publish it; what makes the whole job fail is in its state, not raised."""
        reporter = Reporter(self._lease, self.cancel, lambda: self._events.put(LeaseTaken()))
        last: Progress | None = None
        reason = "the driver ended unexpectedly; please report this with its traceback"
        is_lease_ours = True
        try:
            self._show(self._snapshot("processing"), reporter)
            # The ledger's first conversion imports pandas, half a second of work: better while the workers start.
            threading.Thread(target=importlib.import_module, args=["pandas"], name="pipeline-import").start()
            with self._connect() as client, Announcer(client, self.latest) as self._announcer:
                last = self._run_on(client, reporter)
                # Before the cluster is closed: nobody is to wait for that.
                self._conclude(last, reporter)
        except LeaseLostError as error:
            reason, is_lease_ours = str(error), False
        except PipelineError as error:
            reason = str(error)
        except OSError as error:
            # Dask's errors of communication and time-outs.
            reason = f"the Dask cluster does not answer: {error or type(error).__name__}; the job can be resumed"
        finally:
            if last is None:
                last = replace(self._snapshot("failed"), error=reason)
            self._conclude(last if is_lease_ours else None, reporter)
            self._show(last)
            self._shown.end()

    def _conclude(self, last: Progress | None, reporter: Reporter) -> None:
        """Publish the run's end, or leave what is left to the next queue worker."""
        if self._is_leaving and last is not None and last.status != "completed":
            reporter.close(None)
            # Of a Redis that does not answer, the lease runs out by itself.
            with contextlib.suppress(StateError):
                self._lease.give_back()
        else:
            if last is not None:
                self._show(last)
            reporter.close(last)

    def _run_on(self, client: Client, reporter: Reporter) -> Progress:
        # Those that are to be run again leave the ledger with this, before it is counted.
        found = iter(self._items)
        if self.job.output == "webdataset":
            self._buffer = ShardBuffer(
                self.job, self._ledger, client, self._run_id, self._confirm_lease, self._storage_options
            )
        if self.job.recipe.enhance:
            self._enhance_resources = enhance_resources(client)
        plugin = EquipWorker(self.job, self._card, self._storage_options, self._equipment_type, self._enhance_resources)
        with SeenKeys() as seen, equipped(client, plugin, self._events.put):
            self._buffer.recover(time.monotonic())
            before = self._ledger.tally(self._before, seen)
            core = self._core = RunCore(self.job.recipe.stages, count_threads(client), before, time.monotonic())
            items = (item for item in found if seen.add(item.key))
            head = list(itertools.islice(items, PEEK_ITEMS))
            if len(head) < PEEK_ITEMS:
                core.total = before.done + len(head)
            elif isinstance(self._items, Sized):
                core.total = before.done + len(self._items)
            else:
                threading.Thread(target=self._count, name="pipeline-counter", daemon=True).start()
            try:
                return self._loop(core, client, itertools.chain(head, items), reporter)
            finally:
                # Whatever ended it: what was stored is not to be done again.
                self._buffer.flush(time.monotonic())
                self._futures.clear()

    def _loop(self, core: RunCore, client: Client, items: Iterator[Item], reporter: Reporter) -> Progress:
        flushed_at = reported_at = time.monotonic()
        cancelled_at: float | None = None
        reporter.watch()
        while not (self._buffer.advance(time.monotonic(), is_last=core.is_over) and core.is_over):
            if self._is_equipped:
                self._feed(core, client, items)
            self._handle(core, client, self._events.take(REPORT_INTERVAL_S))
            now = time.monotonic()
            if core.is_cancelled:
                cancelled_at = cancelled_at or now
                if now - cancelled_at > CANCEL_GRACE_S:
                    core.drop_in_flight()
                    self._futures.clear()
                if core.is_over and now - cancelled_at > PACK_GRACE_S:
                    # What is not in a shard yet is packed by whoever goes on.
                    return core.snapshot("cancelled", now)
            if now - reported_at > REPORT_INTERVAL_S:
                # Until the workers are there, there is nothing new; but the run lives.
                self._show(core.snapshot("processing", now) if self._is_equipped else self.latest, reporter)
                reported_at = now
            if now - flushed_at > FLUSH_INTERVAL_S:
                self._buffer.flush(now)
                # Workers come and go.
                core.threads = count_threads(client)
                flushed_at = now
        self._buffer.flush(time.monotonic(), is_last=True)
        self._buffer.close()
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
                self.job.id,
                upstream,
                key=task_key(stage, self.job.id, self._run_id, batch.number),
                priority=FETCH_PRIORITY if stage == "fetch" else 0,
                resources=dict(self._enhance_resources) if stage == "enhance" else None,
                pure=False,
            )
            future.add_done_callback(lambda done, stage=stage: self._hear_end(batch.number, stage, done))

    def _hear_end(self, number: int, stage: Stage, future: Future) -> None:
        # What was given up ends too: nobody would take it out of the queue, and a worker would keep its result.
        if number in self._futures:
            self._events.put(TaskEnded(number, stage, future))

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
                case Equipped(None):
                    self._is_equipped = True
                    core.start_clock(time.monotonic())
                case Equipped(ImportError() as error):
                    raise ClusterError(
                        f"the workers cannot import the pipeline package: {error}; install it there"
                    ) from error
                case Equipped(Exception() as error):
                    raise error
                case WorkerRefused(worker, reason):
                    self._refused[worker] = reason
                # At the end of the collection the total is known better: a count does not see what is listed twice.
                case Counted(total) if not core.is_exhausted:
                    core.total = total
                case CancelRequested():
                    core.is_cancelled = True
                case LeaveRequested():
                    core.is_cancelled = self._is_leaving = True
                case LeaseTaken():
                    raise LeaseLostError(f"another driver has taken job {self.job.id!r} over")
        if self._is_equipped and self._refused:
            self._retire_refused(client)
        # Even of nothing, a gathering waits for the loop's next turn.
        for number, outcomes in client.gather(stored, errors="skip").items() if stored else ():
            if outcomes is None:
                self._handle_loss(core, client, number)
                continue
            del self._futures[number]
            core.finish_batch(number, self._buffer.add(outcomes))

    def _handle_loss(self, core: RunCore, client: Client, number: int) -> None:
        futures = self._futures.pop(number)
        if client.status != "running":
            raise ClusterError("the Dask scheduler is gone; what was stored is in the ledger: the job can be resumed")
        # Of a chain whose worker died, the stage that it died of and all later ones have failed.
        stage = next((stage for stage, future in futures.items() if future.status == "error"), next(iter(futures)))
        error = futures[stage].exception() if futures[stage].status == "error" else None
        if error is None:
            error = WorkerLostError("the cluster gave its tasks up")
        if isinstance(error, KilledWorker):
            error = WorkerLostError(f"a worker process died while it was in {stage}")
        self._buffer.add(core.lose_batch(number, stage, error, time.time()))

    def _retire_refused(self, client: Client) -> None:
        """Send workers away that have joined in mid-run and cannot do the work: the others go on."""
        refused, self._refused = self._refused, {}
        if not client.nthreads().keys() - refused.keys():
            raise ClusterError(next(iter(refused.values())))
        for reason in refused.values():
            log.warning("job %s goes on without a worker: %s", self.job.id, reason)
        client.retire_workers(list(refused))

    def _confirm_lease(self) -> None:
        """Raise LeaseLostError if another driver has taken the job over; else none will for the next seconds."""
        try:
            self._lease.publish(self.latest)
        except LeaseLostError:
            raise
        except StateError as error:
            # Without Redis, nobody can take it over.
            log.warning("%s; the run goes on", error, extra={"job_id": self.job.id})

    def _show(self, progress: Progress, reporter: Reporter | None = None) -> None:
        self._shown.show(progress)
        if reporter:
            reporter.report(progress)
        if self._announcer:
            self._announcer.announce(progress)

    def _snapshot(self, status: JobStatus) -> Progress:
        if self._core:
            return self._core.snapshot(status, time.monotonic())
        # Its speed was that of an earlier run.
        return replace(self._before, status=status, error="", seconds=0.0, images_per_second=0.0, eta_seconds=None)

    def _count(self) -> None:
        # What makes the collection unreadable, the driver meets itself.
        with contextlib.suppress(PipelineError):
            total = sum(1 for _ in itertools.takewhile(lambda _: not self._shown.has_ended, self._items))
            self._events.put(Counted(total))
