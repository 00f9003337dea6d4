"""The handle on a job that every interface shares."""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.catalogue import ModelCard, find_model, inspect_model
from pipeline.display.frontend import is_notebook
from pipeline.display.text import open_terminal_view
from pipeline.domain import Item, Job, Progress, Recipe
from pipeline.errors import ClusterError, StateError
from pipeline.settings import Settings
from pipeline.sources import open_collection
from pipeline.state import JobStore, Lease
from pipeline.storage import require_place_of_report

if TYPE_CHECKING:
    # These take a second to import, so they are imported on use.
    import pandas as pd
    from distributed import Client

    from pipeline.display.gallery import Gallery
    from pipeline.display.report import Report
    from pipeline.runner.cluster import ClusterPlace
    from pipeline.runner.driver import Driver
    from pipeline.runner.ledger import Ledger
    from pipeline.runner.tail import LedgerTail


# How long a process that ends waits for its run to end.
LEAVE_PATIENCE_S: Final = 20.0

# How often bars on a terminal look at a run of this process.
VIEW_INTERVAL_S: Final = 0.1

# The runs of this process, by their ids.
_active: Final[dict[str, JobHandle]] = {}

ConnectCluster = Callable[[], AbstractContextManager["Client"]]


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
        self._driver: Driver | None = None
        self._thread: threading.Thread | None = None
        self._on_end: Callable[[], None] = lambda: None
        self._on_start: list[Callable[[], None]] = []

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
            if self._driver:
                return self._driver.latest
            raise

    def show(self) -> None:
        """Show the job here, in a notebook: a live widget, with buttons to cancel it and to go on with it.

        Where nobody looks on (papermill, nbconvert), its bars up to its end, and only then this returns. Elsewhere
        this does nothing: `wait` shows bars on a terminal.
        """
        if is_notebook():
            from pipeline.display.notebook import show_job

            show_job(self)

    def call_on_start(self, callback: Callable[[], None]) -> None:
        """Have a function called whenever the job is run anew in this process: its `updates` are other ones then."""
        self._on_start.append(callback)

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
        return self._driver.updates() if self._driver else self._store.updates(self.id)

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
        """
        with open_terminal_view(self.job) as view:
            if self._thread:
                deadline_s = math.inf if timeout is None else time.monotonic() + timeout
                while self._thread.is_alive() and (left_s := deadline_s - time.monotonic()) > 0:
                    view.show(self.progress)
                    self._thread.join(min(VIEW_INTERVAL_S, left_s))
                view.show(self.progress)
                return self.progress
            latest = self.progress
            for latest in self._store.updates(self.id, timeout):
                view.show(latest)
                if latest.is_finished or latest.status == "stalled":
                    break
            return latest

    def cancel(self) -> Progress:
        """Stop the job, wherever it runs; what was stored stays, and the job can be resumed."""
        if self._driver and self._thread and self._thread.is_alive():
            self._driver.cancel()
            return self._driver.latest
        return self._store.request_cancel(self.id)

    def retry_failed(self, *, client: Client | None = None, cluster: ClusterPlace | None = None) -> Progress:
        """Run the failed images again, here; returns at once.

        Of a job that was not completed, what is left is done too.

        Raises
        ------
        JobConflictError
            If the job is running.
        """
        return self.start(choose_cluster(self._settings, client, cluster), only_failed=True)

    def resume(self, *, client: Client | None = None, cluster: ClusterPlace | None = None) -> Progress:
        """Do what the ledger does not have yet, here; returns at once.

        Raises
        ------
        JobConflictError
            If the job is running.
        """
        return self.start(choose_cluster(self._settings, client, cluster))

    def outcomes(self) -> pd.DataFrame:
        """Return the ledger: one row an image that has an Outcome."""
        outcomes: pd.DataFrame = self._ledger().read().to_pandas()
        return outcomes

    def tail(self, most_outputs: int) -> LedgerTail:
        """Return what follows the ledger while the job runs, for a view: failures in groups, and latest results."""
        from pipeline.runner.tail import LedgerTail

        return LedgerTail(self._ledger(), most_outputs)

    def gallery(self, limit: int = 24) -> Gallery:
        """Return results as pictures in a grid, at most `limit`, evenly spread over all that are stored.

        Returns
        -------
        Gallery
            A notebook shows it.
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
            Columns ``stage error count example message remedy``: the example is one URL and its message.
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
        self._on_end = on_end
        return self._drive(
            _Opened(lambda: self._items(bool(redo), was_completed=redo == "completed")), connect_cluster, lease
        )

    def _drive(self, items: Iterable[Item], connect_cluster: ConnectCluster, lease: Lease) -> Progress:
        from pipeline.runner.driver import Driver

        card = choose_model(self.job.recipe, self._settings)
        latest = self._store.progress(self.id)
        driver = Driver(self.job, items, lease, latest, connect_cluster, card, self.storage_options)
        self._driver = driver
        self._thread = threading.Thread(target=self._run_driver, name=f"pipeline-driver-{self.id}", daemon=True)
        atexit.register(self._end)
        _active[self.id] = self
        self._thread.start()
        for callback in self._on_start:
            callback()
        return driver.latest

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of a run of this process, at most `timeout` seconds, and show nothing."""
        if self._thread:
            self._thread.join(timeout)

    def leave(self) -> None:
        """Stop a run of this process and leave the job to the next queue worker; returns at once."""
        if self._driver:
            self._driver.leave()

    def _run_driver(self) -> None:
        assert self._driver is not None
        self._driver.run()
        atexit.unregister(self._end)
        _active.pop(self.id, None)
        self._on_end()

    def _end(self) -> None:
        """End the run before its process ends: cleanly, so that it can be resumed."""
        assert self._driver is not None
        assert self._thread is not None
        self._driver.cancel()
        self._thread.join(LEAVE_PATIENCE_S)

    def _items(self, only_failed: bool, was_completed: bool) -> Iterable[Item]:
        if only_failed:
            ledger = self._ledger()
            failed = ledger.failed_items()
            # For whoever resumes this job, should this run be killed too, they are still to be done.
            ledger.forget([item.key for item in failed])
            if was_completed:
                return failed
        return open_collection(
            self.job.collection,
            columns=self.job.columns,
            storage_options=self.storage_options,
            exclude=self.job.destination,
            # Of what strangers ask for, the fetching checks the address; of a manifest, nothing does.
            allow_web_manifest=self.job.fetch.places is None,
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


def choose_model(recipe: Recipe, settings: Settings) -> ModelCard | None:
    """Find the Recipe's model, and make sure that it can be used; None if it asks for none.

    Raises
    ------
    ModelError
        If there is no model of that name, or it cannot be used.
    """
    return inspect_model(find_model(recipe.enhance, settings.models)) if recipe.enhance else None


def with_dask_report(connect_cluster: ConnectCluster, path: Path) -> ConnectCluster:
    """Have Dask's own performance report of the run written to an HTML file.

    Raises
    ------
    DestinationError
        If it cannot be written there: better now than after a night's run.
    """
    from pipeline.runner.dask_report import open_reported

    require_place_of_report(path)
    return lambda: open_reported(connect_cluster, path)


def choose_cluster(
    settings: Settings,
    client: Client | None = None,
    cluster: ClusterPlace | None = None,
    workers: int | None = None,
) -> ConnectCluster:
    """Decide where the tasks run, and make sure that a scheduler which somebody else runs answers.

    Raises
    ------
    ClusterError, SettingsError
        If it does not, or if what names the cluster means nothing.
    """
    from pipeline.runner.cluster import check_scheduler, open_client

    if client is not None:
        if cluster is not None or workers is not None:
            raise ClusterError("client is given with cluster or workers; allowed is one of client, cluster and workers")
        return lambda: nullcontext(client)
    place = cluster or settings.cluster
    if place is not None:
        check_scheduler(place)
    return lambda: open_client(place, workers)
