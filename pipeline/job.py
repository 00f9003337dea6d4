"""The handle on a job that every interface shares."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from pipeline.choosing import ConnectCluster, choose_cluster, choose_model
from pipeline.display.frontend import is_notebook
from pipeline.display.text import open_terminal_view
from pipeline.domain import Item, Job, Progress
from pipeline.errors import StateError
from pipeline.local_run import LocalRun
from pipeline.sealing import list_purpose, require_open
from pipeline.settings import Settings
from pipeline.sources import open_collection
from pipeline.state import JobStore, Lease

if TYPE_CHECKING:
    # These take a second to import, so they are imported on use.
    import pandas as pd
    from distributed import Client

    from pipeline.display.gallery import Gallery
    from pipeline.display.report import Report
    from pipeline.runner.cluster import ClusterPlace
    from pipeline.runner.ledger import Ledger
    from pipeline.runner.tail import LedgerTail


# How often bars on a terminal look at a run of this process.
VIEW_INTERVAL_S: Final = 0.1

# The runs of this process, by their ids.
_active: Final[dict[str, JobHandle]] = {}


class JobHandle:
    """A job that runs here, runs elsewhere, or has ended; the same object wherever Redis is reached.

    Made by `run`, `attach` and `jobs`.
    """

    def __init__(
        self, job: Job, store: JobStore, settings: Settings, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        self.job = job
        self._store = store
        self._settings = settings
        self.storage_options = storage_options
        # Called whenever the job is run anew in this process: its `updates` are other ones then.
        self.on_start: Callable[[], None] = lambda: None
        self._run: LocalRun | None = None
        self._connect_cluster: ConnectCluster | None = None

    def __repr__(self) -> str:
        progress = self.progress
        total = "?" if progress.total is None else progress.total
        return f"<Job {self.id} {progress.status}: {progress.done} of {total}, {progress.failed} failed>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    @property
    def progress(self) -> Progress:
        """The job as it is now.

        Raises
        ------
        StateError
            If Redis does not answer, and the job does not run in this process.
        """
        try:
            return self._store.progress(self.id)
        except StateError:
            if self._run:
                return self._run.driver.latest
            raise

    @property
    def goes_on(self) -> bool:
        """Whether a run of this process works on it, and nobody has asked that to stop."""
        return self._run is not None and self._run.goes_on

    def show(self) -> None:
        """Show the job here, in a notebook: a live widget, with buttons to cancel it and to go on with it.

        Where nobody looks on (papermill, nbconvert), its bars up to its end, and only then this returns. Elsewhere
        this does nothing: `wait` shows bars on a terminal.
        """
        if is_notebook():
            from pipeline.display.notebook import show_job

            show_job(self)

    def _ipython_display_(self) -> None:
        if not is_notebook():
            # IPython shows the repr then.
            raise NotImplementedError
        self.show()

    def updates(self) -> Iterator[Progress]:
        """Yield the job as it is now, then as it changes, up to its final status.

        A job that runs elsewhere and whose driver dies becomes ``stalled``; the updates go on, for whoever resumes it.

        Raises
        ------
        StateError
            If Redis does not answer, and the job does not run in this process.
        """
        return self._run.driver.updates() if self._run and self._run.is_alive else self._store.updates(self.id)

    def wait(self, timeout: float | None = None) -> Progress:
        """Wait until the job has ended; on a terminal, with a bar for each stage.

        Parameters
        ----------
        timeout : float, optional
            Seconds; then the job goes on, and its `Progress` says that it is not finished.

        Returns
        -------
        Progress
            The last snapshot: of a final status, or ``stalled`` if the job's driver, in another process, has died.
            Failed images raise nothing: they are counted here, and listed by `failures`.

        Raises
        ------
        StateError
            If Redis does not answer, and the job does not run in this process.
        """
        with open_terminal_view(self.job) as view:
            deadline_s = math.inf if timeout is None else time.monotonic() + timeout
            while self._run and self._run.is_alive and (left_s := deadline_s - time.monotonic()) > 0:
                view.show(self._run.driver.latest)
                self._run.join(min(VIEW_INTERVAL_S, left_s))
            latest = self.progress
            view.show(latest)
            if latest.is_finished or (self._run and self._run.is_alive):
                return latest
            rest_s = None if timeout is None else max(0.0, deadline_s - time.monotonic())
            for latest in self._store.updates(self.id, rest_s):
                view.show(latest)
                if latest.is_finished or latest.status == "stalled":
                    break
            return latest

    def cancel(self) -> Progress:
        """Stop the job, wherever it runs; what was stored stays, and the job can be resumed.

        Returns
        -------
        Progress
            As it is now: images in hand are finished first.

        Raises
        ------
        StateError
            If Redis does not answer, and the job does not run in this process.
        """
        if self._run and self._run.is_alive:
            self._run.cancel()
            return self._run.driver.latest
        return self._store.request_cancel(self.id)

    def retry_failed(self, *, client: Client | None = None, cluster: ClusterPlace | None = None) -> Progress:
        """Run the failed images again, here; returns at once.

        Of a job that was not completed, what is left is done too.

        Parameters
        ----------
        client, cluster
            As in `pipeline.run`; if neither is given, where this process ran it before.

        Returns
        -------
        Progress
            As it is now.

        Raises
        ------
        JobConflictError
            If the job is running.
        LedgerError, ModelError, SourceError, StateError, ClusterError, SettingsError
            If it cannot begin.
        """
        return self.start(self._choose_cluster(client, cluster), only_failed=True)

    def resume(self, *, client: Client | None = None, cluster: ClusterPlace | None = None) -> Progress:
        """Do what the ledger does not have yet, here; returns at once.

        Parameters
        ----------
        client, cluster
            As in `pipeline.run`; if neither is given, where this process ran it before.

        Returns
        -------
        Progress
            As it is now.

        Raises
        ------
        JobConflictError
            If the job is running.
        ModelError, SourceError, StateError, ClusterError, SettingsError
            If it cannot begin.
        """
        return self.start(self._choose_cluster(client, cluster))

    def outcomes(self) -> pd.DataFrame:
        """Return the ledger: one row an image that has an Outcome.

        Raises
        ------
        LedgerError
            If it cannot be read, as without the storage options that it needs.
        """
        outcomes: pd.DataFrame = self._ledger().read().to_pandas()
        return outcomes

    def tail(self, most_outputs: int) -> LedgerTail:
        """Return what follows the ledger while the job runs, for a view: failures in groups, and latest results.

        Parameters
        ----------
        most_outputs : int
            How many of the latest results are kept.
        """
        from pipeline.runner.tail import LedgerTail

        return LedgerTail(self._ledger(), most_outputs)

    def gallery(self, limit: int = 24) -> Gallery:
        """Return results as pictures in a grid, evenly spread over all that are stored.

        Parameters
        ----------
        limit : int
            How many at most.

        Returns
        -------
        Gallery
            A notebook shows it.

        Raises
        ------
        LedgerError
            If the ledger cannot be read.
        """
        from pipeline.display.gallery import make_gallery

        return make_gallery(self.outcomes(), limit, self.storage_options)

    def report(self, path: str | os.PathLike[str] | None = None) -> Report:
        """Return how the job went: its speed over time, seconds by stage, latency by host, failures, bytes.

        Parameters
        ----------
        path : path, optional
            The HTML file that it is also written to; it needs no network and can be sent to anybody.

        Returns
        -------
        Report
            A notebook shows it; ``html`` is the page.

        Raises
        ------
        DestinationError
            If the file cannot be written.
        LedgerError
            If the ledger cannot be read.
        """
        from pipeline.display.report import make_report

        report = make_report(self.outcomes(), self.progress, self.job)
        if path is not None:
            report.save(path)
        return report

    def failures(self) -> pd.DataFrame:
        """Return the failed images, grouped by stage and error, the most frequent first.

        Returns
        -------
        DataFrame
            Columns ``stage error count example message remedy``: the example is one URL, as it may be shown, and its
            message.

        Raises
        ------
        LedgerError
            If the ledger cannot be read.
        """
        from pipeline.runner.failures import group_failures

        return group_failures(self.outcomes())

    def start(self, connect_cluster: ConnectCluster, *, only_failed: bool = False) -> Progress:
        """Run the job in a thread of this process: what its ledger does not have yet, or only what failed.

        What `run`, `resume` and `retry_failed` have in common; see there.

        Parameters
        ----------
        connect_cluster : callable
            As `choose_cluster` returns it.
        only_failed : bool
            Whether only the failed images are run, if the job was completed.
        """
        before = self._store.progress(self.id)
        if only_failed and before.status == "completed" and not before.failed:
            return before
        choose_model(self.job.recipe, self._settings)
        lease = self._store.acquire(self.job)
        try:
            items = self._items(only_failed, was_completed=before.status == "completed")
            return self._drive(items, connect_cluster, lease)
        except BaseException:
            with contextlib.suppress(StateError):
                lease.release()
            raise

    def drive(
        self,
        connect_cluster: ConnectCluster,
        lease: Lease,
        *,
        redo: str = "",
        on_end: Callable[[], None] = lambda: None,
    ) -> Progress:
        """Run the job in a thread of this process, by the right that a lease gives; an error leaves the lease as it is.

        The collection is opened in that thread too, however long that takes: whatever is wrong with it fails the job.

        Parameters
        ----------
        connect_cluster : callable
            As `choose_cluster` returns it.
        lease : Lease
        redo : str
            The status at which the job had ended, if the failed images are to be run again.
        on_end : callable
            Called in that thread when the run has ended.
        """
        items = _Opened(lambda: self._items(bool(redo), was_completed=redo == "completed"))
        return self._drive(items, connect_cluster, lease, on_end)

    def _drive(
        self,
        items: Iterable[Item],
        connect_cluster: ConnectCluster,
        lease: Lease,
        on_end: Callable[[], None] = lambda: None,
    ) -> Progress:
        from pipeline.runner.driver import Driver

        card = choose_model(self.job.recipe, self._settings)
        latest = self._store.progress(self.id)
        driver = Driver(
            self.job, items, lease, latest, connect_cluster, card, self.storage_options, seal=self._store.seal
        )
        run = LocalRun(driver, lambda: self._forget(run, on_end))
        self._run, self._connect_cluster = run, connect_cluster
        _active[self.id] = self
        run.start()
        self.on_start()
        return driver.latest

    def _forget(self, run: LocalRun, on_end: Callable[[], None]) -> None:
        # While its cluster was closing, another run may have gone on with the job.
        if self._run is run and _active.get(self.id) is self:
            del _active[self.id]
        on_end()

    def _choose_cluster(self, client: Client | None, cluster: ClusterPlace | None) -> ConnectCluster:
        if self._connect_cluster and client is None and cluster is None:
            return self._connect_cluster
        return choose_cluster(self._settings, client, cluster)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of a run of this process, at most `timeout` seconds, and show nothing."""
        if self._run:
            self._run.join(timeout)

    def leave(self) -> None:
        """Stop a run of this process and leave the job to the next queue worker; returns at once."""
        if self._run:
            self._run.leave()

    def _items(self, only_failed: bool, was_completed: bool) -> Iterable[Item]:
        if only_failed:
            ledger = self._ledger()
            failed = ledger.failed_items(self._store.seal)
            # For whoever resumes this job, should this run be killed too, they are still to be done.
            ledger.forget([item.key for item in failed])
            if was_completed:
                return failed
        seal = self._store.seal
        return open_collection(
            # One that the store could not open: this says why.
            require_open(self.job, seal).collection,
            columns=self.job.columns,
            storage_options=self.storage_options,
            exclude=self.job.destination,
            places=self.job.fetch.places,
            unseal=functools.partial(seal.open, purpose=list_purpose(self.id)),
        )

    def _ledger(self) -> Ledger:
        from pipeline.runner.ledger import Ledger

        return Ledger(self.job.destination, self.id, self.storage_options)


class _Opened:
    """Items of a collection that is opened when they are first asked for."""

    def __init__(self, open_items: Callable[[], Iterable[Item]]) -> None:
        self._open = functools.cache(open_items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._open())


def find_active(job_id: str) -> JobHandle | None:
    """Return the handle of a job that runs in this process."""
    return _active.get(job_id)
