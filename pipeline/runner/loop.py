"""The loop of a run: takes Items in, has them worked on, and enters what becomes of them.

What to do is decided in `core`; here it is done. Everything that happens (a task ended, somebody cancelled, the lease
is lost) comes in through one queue, and one thread acts on it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from distributed import Client

from pipeline.domain import Item, Progress
from pipeline.errors import ClusterError, LeaseLostError
from pipeline.runner.books import Books
from pipeline.runner.buffer import OutcomeBuffer
from pipeline.runner.chains import Chains, Loss
from pipeline.runner.cluster import Crew
from pipeline.runner.contents import Contents
from pipeline.runner.core import RunCore
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
from pipeline.runner.intake import Intake

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S: Final = 3.0

# The reporter thins out what it publishes: together they are to stay below what a person takes for at once.
REPORT_INTERVAL_S: Final = 0.04

# How long a cancelled run waits for the images that are in the workers' hands.
CANCEL_GRACE_S: Final = 1.5

# How long it waits for shards that are being packed: a cluster whose workers have gone packs none.
PACK_GRACE_S: Final = 30.0


class WorkLoop:
    """One run's work, from its first Item to its last Outcome.

    Parameters
    ----------
    core : RunCore
    intake : Intake
    contents : Contents
    buffer : OutcomeBuffer
    events : EventQueue
    show : callable
        Called with each new snapshot.
    """

    def __init__(
        self,
        core: RunCore,
        intake: Intake,
        contents: Contents,
        buffer: OutcomeBuffer,
        events: EventQueue,
        show: Callable[[Progress], None],
    ) -> None:
        self.core = core
        self.is_leaving = False
        self._intake = intake
        self._contents = contents
        self._buffer = buffer
        self._events = events
        self._show = show
        self._books = Books(core, intake, contents, buffer)
        self._is_equipped = False
        self._refused: dict[str, str] = {}
        self._flushed_at_s = self._shown_at_s = time.monotonic()

    def pass_over_unchanged(self) -> bool:
        """Skip what needs no work; return whether something does: a night without anything new needs no cluster.

        Raises
        ------
        LeaseLostError
            If another driver has taken the job over.
        SourceError, DestinationError, LedgerError
            If what there is cannot be read, or what became of it not be written.
        """
        while not self.core.is_over:
            self._heed(self._events.take(0.0))
            if self._take(1, self._intake.put_back):
                return True
            now = time.monotonic()
            self._show_now_and_then(now)
            self._flush_now_and_then(now)
        return False

    def work(self, client: Client, chains: Chains) -> Progress:
        """Have the rest worked on; return the last snapshot.

        Raises
        ------
        ClusterError
            If the cluster cannot do the work, or is gone.
        LeaseLostError, SourceError, DestinationError, LedgerError, StoreError
            As `pass_over_unchanged`; and if shards cannot be put in place.
        """
        core = self.core
        crew = Crew(client)
        core.threads = crew.count_threads()
        cancelled_at: float | None = None
        while not (self._buffer.advance(time.monotonic(), is_last=core.is_over) and core.is_over):
            is_hurried = self._is_equipped and self._feed(chains)
            self._handle(client, chains, self._events.take(0.0 if is_hurried else REPORT_INTERVAL_S))
            now = time.monotonic()
            if core.is_cancelled:
                cancelled_at = cancelled_at or now
                if now - cancelled_at > CANCEL_GRACE_S:
                    core.drop_in_flight()
                    chains.drop()
                if core.is_over and now - cancelled_at > PACK_GRACE_S:
                    # What is not in a shard yet is packed by whoever goes on.
                    return core.snapshot("cancelled", now)
            self._show_now_and_then(now)
            if self._flush_now_and_then(now):
                # Workers come and go.
                core.threads = crew.count_threads()
        return self.finish()

    def finish(self) -> Progress:
        """Write what is left; return the last snapshot."""
        self._buffer.flush(time.monotonic(), is_last=True)
        self._buffer.close()
        is_incomplete = self.core.is_cancelled and self.core.done != self.core.total
        return self.core.snapshot("cancelled" if is_incomplete else "completed", time.monotonic())

    def _feed(self, chains: Chains) -> bool:
        """Start batches; return whether there is more of the collection to look at, at once."""
        core = self.core
        while suspects := core.start_suspects():
            chains.submit(suspects)
        while core.wants_items:
            if not self._take(core.next_batch_size, lambda items: self._begin(chains, items)):
                return core.wants_items
        return False

    def _begin(self, chains: Chains, items: list[Item]) -> None:
        if batch := self.core.start(items):
            chains.submit(batch)

    def _take(self, n_items: int, begin: Callable[[list[Item]], None]) -> bool:
        """Take some Items in, and begin those that are to be worked on; return whether there were any."""
        taken = self._intake.take(n_items)
        self._books.skip(taken.skipped)
        if taken.items:
            begin(taken.items)
        if taken.is_end:
            self.core.is_exhausted = True
            self.core.total = self.core.done + self.core.pending
        return bool(taken.items)

    def _handle(self, client: Client, chains: Chains, events: Sequence[Event]) -> None:
        heard = chains.hear(self._heed(events))
        if self._is_equipped and self._refused:
            self._retire_refused(client)
        for number, stage in heard.left:
            self.core.finish_stage(number, stage)
        for number, sha256_by_key in heard.contents.items():
            chains.go_on(number, self._contents.find_duplicates(sha256_by_key))
        for number, outcomes in heard.outcomes.items():
            self._books.finish_batch(number, outcomes)
        if heard.losses:
            self._note_losses(heard.losses)

    def _note_losses(self, losses: Sequence[Loss]) -> None:
        for loss in losses:
            if blamed := self.core.lose_batch(loss.number, loss.stage, loss.error, time.time()):
                self._books.finish_batch(loss.number, [blamed])
        # Should this process die too, the next one is to know what may have killed the worker.
        self._buffer.keep_suspects(self.core.suspect_keys)

    def _heed(self, events: Sequence[Event]) -> list[TaskEnded]:
        """Act on what has happened to the run as a whole; return the rest."""
        ended = []
        for event in events:
            match event:
                case TaskEnded():
                    ended.append(event)
                case Equipped(None):
                    self._is_equipped = True
                    self.core.start_clock(time.monotonic())
                case Equipped(ImportError() as error):
                    raise ClusterError(
                        f"the workers cannot import the pipeline package: {error}; install it there"
                    ) from error
                case Equipped(Exception() as error):
                    raise error
                case WorkerRefused(worker, reason):
                    self._refused[worker] = reason
                # At the end of the collection the total is known better: a count does not see what is listed twice.
                case Counted(total) if not self.core.is_exhausted:
                    self.core.total = total
                case CancelRequested():
                    self.core.is_cancelled = True
                case LeaveRequested():
                    self.core.is_cancelled = self.is_leaving = True
                case LeaseTaken():
                    raise LeaseLostError(f"another driver has taken job {self.core.job_id!r} over")
        return ended

    def _retire_refused(self, client: Client) -> None:
        """Send workers away that have joined in mid-run and cannot do the work: the others go on."""
        refused, self._refused = self._refused, {}
        if not client.nthreads().keys() - refused.keys():
            raise ClusterError(next(iter(refused.values())))
        for reason in refused.values():
            log.warning("job %s goes on without a worker: %s", self.core.job_id, reason)
        client.retire_workers(list(refused))

    def _show_now_and_then(self, now_s: float) -> None:
        if now_s - self._shown_at_s > REPORT_INTERVAL_S:
            progress = self.core.snapshot("processing", now_s)
            # Until the workers are there, there is nothing new; but the run lives.
            is_begun = self._is_equipped or self.core.has_news
            self._show(progress if is_begun else replace(progress, seconds=0.0))
            self._shown_at_s = now_s

    def _flush_now_and_then(self, now_s: float) -> bool:
        is_time = now_s - self._flushed_at_s > FLUSH_INTERVAL_S
        if is_time:
            self._buffer.flush(now_s)
            self._flushed_at_s = now_s
        return is_time
