"""The driver: submits a job's batches, and alone writes its ledger and its state.

Here is what a run needs around its work, which is done in `loop`: the lease, the ledgers, the cluster, and whoever
wants to know how it goes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final

from distributed import Client

from pipeline.catalogue import ModelCard
from pipeline.domain import Item, Job, JobStatus, Progress
from pipeline.errors import LeaseLostError, PipelineError, StateError
from pipeline.runner.announcer import Announcer
from pipeline.runner.buffer import OutcomeBuffer
from pipeline.runner.chains import Chains
from pipeline.runner.contents import Contents
from pipeline.runner.core import RunCore
from pipeline.runner.earlier import EarlierJobs
from pipeline.runner.equipping import equipped
from pipeline.runner.events import (
    CancelRequested,
    Counted,
    EventQueue,
    LeaseTaken,
    LeaveRequested,
)
from pipeline.runner.images import Equipment
from pipeline.runner.intake import Intake
from pipeline.runner.ledger import Ledger
from pipeline.runner.loop import WorkLoop
from pipeline.runner.named_cluster import enhance_resources
from pipeline.runner.reporter import Reporter
from pipeline.runner.seen import SeenKeys
from pipeline.runner.sharded import ShardEquipment
from pipeline.runner.shards import ShardBuffer
from pipeline.runner.shown import Shown
from pipeline.runner.tasks import EquipWorker
from pipeline.runner.tenure import Tenure
from pipeline.sealing import Seal, seal_url
from pipeline.state import Lease

# A longer collection is counted beside the run, so that its first images need not wait for its last name.
PEEK_ITEMS: Final = 2000


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
    seal : Seal, optional
        What seals the URLs that have secrets; without it they are not kept, and such an image cannot be tried again.
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
        seal: Seal | None = None,
    ) -> None:
        self.job = job
        self._items = items
        self._tenure = Tenure(lease, lambda: self.latest)
        self._before = before
        self._connect = connect
        self._card = card
        self._storage_options = storage_options
        self._seal = seal
        self._equipment_type = equipment_type or (ShardEquipment if job.output == "webdataset" else Equipment)
        self._ledger = Ledger(job.destination, job.id, storage_options)
        # Tells the tasks of this run from those of an earlier one that the scheduler may still know.
        self._run_id = uuid.uuid4().hex[:12]
        self._events = EventQueue()
        self._buffer = (
            ShardBuffer(job, self._ledger, self._run_id, storage_options, self._tenure)
            if job.output == "webdataset"
            else OutcomeBuffer(self._ledger, job.recipe.fingerprint, self._tenure)
        )
        self._is_fresh = False
        self._loop: WorkLoop | None = None
        self._announcer: Announcer | None = None
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
        reporter = Reporter(self._tenure, self.cancel, lambda: self._events.put(LeaseTaken()))
        last: Progress | None = None
        reason = "the driver ended unexpectedly; please report this with its traceback"
        is_lease_ours = True
        try:
            self._show(self._snapshot("processing"), reporter)
            # The ledger's first conversion imports pandas, half a second of work: better while the workers start.
            threading.Thread(target=importlib.import_module, args=["pandas"], name="pipeline-import").start()
            last = self._drive(reporter)
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

    def _drive(self, reporter: Reporter) -> Progress:
        model = self._card.label if self._card else ""
        with (
            SeenKeys() as seen,
            Contents(is_any_left=self.job.deduplicate) as contents,
            EarlierJobs(self.job, model, self._storage_options, self._seal) as earlier,
        ):
            try:
                loop = self._begin(seen, contents, earlier, reporter)
                if not loop.pass_over_unchanged():
                    return self._leave_checkpoint(loop.finish(), earlier)
                with self._connect() as client, Announcer(client, self.latest) as self._announcer:
                    last = self._leave_checkpoint(self._run_on(client, loop, reporter), earlier)
                    # Before the cluster is closed: nobody is to wait for that.
                    self._conclude(last, reporter)
                    return last
            finally:
                # Whatever ended it: what was stored is not to be done again, unless by whoever has taken the job over.
                self._tenure.require()
                self._buffer.flush(time.monotonic())

    def _leave_checkpoint(self, last: Progress, earlier: EarlierJobs) -> Progress:
        # A ledger that earlier runs have begun may tell of sources as they were then.
        if last.status == "completed" and self._is_fresh:
            earlier.write_checkpoint()
        return last

    def _conclude(self, last: Progress | None, reporter: Reporter) -> None:
        """Publish the run's end, or leave what is left to the next queue worker."""
        is_left = self._loop is not None and self._loop.is_leaving
        if is_left and last is not None and last.status != "completed":
            reporter.close(None)
            # Of a Redis that does not answer, the lease runs out by itself.
            with contextlib.suppress(StateError):
                self._tenure.give_back()
        else:
            if last is not None:
                self._show(last)
            reporter.close(last)

    def _begin(self, seen: SeenKeys, contents: Contents, earlier: EarlierJobs, reporter: Reporter) -> WorkLoop:
        """Read what there is already, and take the collection in."""
        # Those that are to be run again leave the ledger with this, before it is counted.
        found = iter(self._items)
        self._ledger.clear_leftovers()
        self._buffer.recover(time.monotonic())
        earlier.read()
        before = self._ledger.tally(self._before, seen, contents)
        self._is_fresh = not before.done
        core = RunCore(self.job.recipe.stages, 1, before, time.monotonic(), self._ledger.suspects())
        seal = self._seal
        items = (seal_url(item, self.job, seal) if seal else item for item in found if seen.add(item.key))
        head = list(itertools.islice(items, PEEK_ITEMS))
        if len(head) < PEEK_ITEMS:
            core.total = before.done + len(head)
        elif isinstance(self._items, Sized):
            core.total = before.done + len(self._items)
        else:
            threading.Thread(target=self._count, name="pipeline-counter", daemon=True).start()
        intake = Intake(itertools.chain(head, items), earlier)
        show = functools.partial(self._show, reporter=reporter)
        self._loop = WorkLoop(core, intake, contents, self._buffer, self._events, show)
        return self._loop

    def _run_on(self, client: Client, loop: WorkLoop, reporter: Reporter) -> Progress:
        self._buffer.connect(client)
        resources = enhance_resources(client) if self.job.recipe.enhance else {}
        plugin = EquipWorker(self.job, self._card, self._storage_options, self._equipment_type, resources)
        chains = Chains(client, self.job, self._run_id, resources, self._events.put)
        with equipped(client, plugin, self._events.put):
            reporter.watch()
            try:
                return loop.work(client, chains)
            finally:
                chains.drop()

    def _show(self, progress: Progress, reporter: Reporter | None = None) -> None:
        self._shown.show(progress)
        if reporter:
            reporter.report(progress)
        if self._announcer:
            self._announcer.announce(progress)

    def _snapshot(self, status: JobStatus) -> Progress:
        if self._loop:
            return self._loop.core.snapshot(status, time.monotonic())
        # Its speed was that of an earlier run.
        return replace(self._before, status=status, error="", seconds=0.0, images_per_second=0.0, eta_seconds=None)

    def _count(self) -> None:
        # What makes the collection unreadable, the driver meets itself.
        with contextlib.suppress(PipelineError):
            total = sum(1 for _ in itertools.takewhile(lambda _: not self._shown.has_ended, self._items))
            self._events.put(Counted(total))
