"""`run`, `attach` and `jobs`: the handle on a job that every interface shares."""

from __future__ import annotations

import atexit
import functools
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.catalogue import find_model
from pipeline.domain import FetchPolicy, Item, Job, Progress, Recipe
from pipeline.errors import DestinationError, LedgerError, PipelineError
from pipeline.settings import Settings
from pipeline.sources import first_item, open_collection
from pipeline.state import JobStore, connect
from pipeline.storage import absolute

if TYPE_CHECKING:
    # These take a second to import, so they are imported on use.
    import pandas as pd
    from distributed import Client
    from distributed.deploy import Cluster

    from pipeline.runner.driver import Driver
    from pipeline.runner.ledger import Ledger

Place = str | os.PathLike[str]
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
        self._storage_options = storage_options
        self._driver: Driver | None = None
        self._thread: threading.Thread | None = None

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
        """The job as it is now."""
        return self._store.progress(self.id)

    def updates(self) -> Iterator[Progress]:
        """Yield the job as it is now, then as it changes, up to its final status."""
        return self._store.updates(self.id)

    def wait(self, timeout: float | None = None) -> Progress:
        """Wait until the job has ended.

        Parameters
        ----------
        timeout : float, optional
            Seconds; then the job goes on, and its `Progress` says that it is not finished.

        Returns
        -------
        Progress
            The last snapshot. Failed images raise nothing: they are counted here, and listed by `failures`.
        """
        if self._thread:
            self._thread.join(timeout)
            return self.progress
        latest = self.progress
        for latest in self._store.updates(self.id, timeout):
            if latest.is_finished or latest.status == "stalled":
                break
        return latest

    def cancel(self) -> Progress:
        """Stop the job, wherever it runs; what was stored stays, and the job can be resumed."""
        return self._store.request_cancel(self.id)

    def retry_failed(self, *, client: Client | None = None, cluster: str | None = None) -> Progress:
        """Run the failed images again, here; returns at once.

        Raises
        ------
        JobConflictError
            If the job is running.
        """
        return self.start(_choose_cluster(self._settings, client, cluster), only_failed=True)

    def resume(self, *, client: Client | None = None, cluster: str | None = None) -> Progress:
        """Do what the ledger does not have yet, here; returns at once.

        Raises
        ------
        JobConflictError
            If the job is running.
        """
        return self.start(_choose_cluster(self._settings, client, cluster))

    def outcomes(self) -> pd.DataFrame:
        """Return the ledger: one row an image that has an Outcome."""
        outcomes: pd.DataFrame = self._ledger().read().to_pandas()
        return outcomes

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
        """Run the job in this process, in a thread: what its ledger does not have yet, or only what failed."""
        from pipeline.runner.driver import Driver

        was_completed = self.progress.status == "completed"
        lease = self._store.acquire(self.job)
        try:
            items = self._items(only_failed, was_completed)
        except PipelineError:
            lease.release()
            raise
        self._driver = Driver(self.job, items, lease, self.progress, connect_cluster, self._storage_options)
        self._thread = threading.Thread(target=self._driver.run, name=f"pipeline-driver-{self.id}", daemon=True)
        self._thread.start()
        atexit.register(self._leave)
        return self.progress

    def _leave(self) -> None:
        """End the run before its process ends: cleanly, so that it can be resumed."""
        if self._driver and self._thread and self._thread.is_alive():
            self._driver.cancel()
            self._thread.join()

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
            url_column=self.job.url_column,
            storage_options=self._storage_options,
            exclude=self.job.destination,
        )

    def _ledger(self) -> Ledger:
        from pipeline.runner.ledger import Ledger

        return Ledger(self.job.destination, self.id, self._storage_options)


def run(
    collection: Place | Sequence[Place],
    destination: Place,
    recipe: Recipe | None = None,
    *,
    job_id: str | None = None,
    client: Client | None = None,
    cluster: str | Cluster | None = None,
    workers: int | None = None,
    url_column: str = "url",
    storage_options: Mapping[str, Any] | None = None,
    allow_private: bool | None = None,
    timeout: float = 30.0,
    retries: int = 2,
) -> JobHandle:
    """Fetch, resize, enhance and store every image of a collection; returns at once.

    Running the same `job_id` again resumes it: what its ledger has already is not done again.

    Parameters
    ----------
    collection : path, glob, URL, manifest, or a sequence of paths and URLs
        See `pipeline.sources`.
    destination : path or URL
        The folder of the results, ``DESTINATION/KEY.EXT``, and of the ledger.
    recipe : Recipe, optional
    job_id : str, optional
        A name of yours; one made of the time if not given.
    client : distributed.Client, optional
        An open client, which stays open.
    cluster : str or distributed cluster, optional
        A scheduler's address or a cluster; without it ``PIPELINE_CLUSTER``, and without that a local cluster that
        lives as long as the run.
    workers : int, optional
        Processes of the local cluster; one a core if not given.
    url_column : str
        The manifest's column that holds the URLs.
    storage_options : mapping, optional
        As in fsspec; never written down, so whoever resumes the job elsewhere gives them again.
    allow_private : bool, optional
        Whether sources may be on addresses that are not public; ``PIPELINE_ALLOW_PRIVATE`` if not given.
    timeout : float
        Seconds for one whole answer of a source.
    retries : int
        How often a source that fails in a way that may pass is asked again.

    Returns
    -------
    JobHandle
        In a script, end with ``.wait()``: the run ends with its process. (Since workers are processes, a script needs
        the usual ``if __name__ == "__main__":``.)

    Raises
    ------
    RecipeError, ModelError, SourceError, DestinationError, StateError, ClusterError
        Before any work begins, if it cannot be done.
    """
    settings = Settings.from_environ()
    recipe = recipe or Recipe()
    if recipe.enhance:
        find_model(recipe.enhance)
    policy = FetchPolicy(
        timeout, retries, allow_private=settings.allow_private if allow_private is None else allow_private
    )
    job = Job(job_id or new_job_id(), "", absolute(destination), recipe, policy, url_column)
    _check_readable(collection, job, storage_options)
    store = _store_of(settings)
    connect_cluster = _choose_cluster(settings, client, cluster, workers)
    job = _settle(collection, job, storage_options)
    store.create(job)
    handle = JobHandle(job, store, settings, storage_options)
    handle.start(connect_cluster)
    return handle


def attach(job_id: str, *, storage_options: Mapping[str, Any] | None = None) -> JobHandle:
    """Return the handle on a job that any process runs or has run.

    Parameters
    ----------
    job_id : str
    storage_options : mapping, optional
        As in fsspec, where its ledger needs them.

    Raises
    ------
    JobNotFoundError
        If no job has that id.
    """
    settings = Settings.from_environ()
    store = _store_of(settings)
    return JobHandle(store.load_job(job_id), store, settings, storage_options)


def jobs(limit: int = 50) -> list[JobHandle]:
    """Return the recent jobs, the newest first."""
    settings = Settings.from_environ()
    store = _store_of(settings)
    return [JobHandle(job, store, settings) for job, _ in store.jobs(limit)]


def new_job_id() -> str:
    """Make a job's id of the time, so that ids sort by it, and of chance."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _check_readable(collection: Place | Sequence[Place], job: Job, storage_options: Mapping[str, Any] | None) -> None:
    first_item(
        open_collection(collection, url_column=job.url_column, storage_options=storage_options, exclude=job.destination)
    )


def _settle(collection: Place | Sequence[Place], job: Job, storage_options: Mapping[str, Any] | None) -> Job:
    """Make sure that the destination can be written; return the job with its collection as any process finds it."""
    from pipeline.runner.ledger import Ledger

    ledger = Ledger(job.destination, job.id, storage_options)
    try:
        ledger.check_writable()
        if isinstance(collection, str | os.PathLike):
            return replace(job, collection=absolute(collection))
        # A list lives in this process only: whoever resumes the job reads it beside the ledger.
        lines = "".join(f"{json.dumps(absolute(entry))}\n" for entry in collection)
        return replace(job, collection=ledger.save("collection.jsonl", lines))
    except LedgerError as error:
        raise DestinationError(f"cannot write to the destination {job.destination!r}: {error.__cause__}") from error


def _choose_cluster(
    settings: Settings,
    client: Client | None = None,
    cluster: str | Cluster | None = None,
    workers: int | None = None,
) -> ConnectCluster:
    """Decide where the tasks run, and make sure that a scheduler which somebody else runs answers."""
    from pipeline.runner.cluster import check_scheduler, open_client

    if client is not None:
        return lambda: nullcontext(client)
    place = cluster or settings.cluster
    if place is not None:
        check_scheduler(place)
    return lambda: open_client(place, workers)


@functools.cache
def _store_of(settings: Settings) -> JobStore:
    """Share one connection to Redis among the handles of this process."""
    return connect(settings.redis_url, settings.data_dir)
