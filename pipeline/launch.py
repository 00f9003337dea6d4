"""`run`, `attach` and `jobs`: the ways to a job, the same for every interface."""

from __future__ import annotations

import functools
import importlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.catalogue import ModelCard, list_models
from pipeline.choosing import choose_cluster, choose_model, with_dask_report
from pipeline.display.job_list import JobList
from pipeline.domain import FetchPolicy, ImageLimits, Job, Output, Recipe
from pipeline.errors import DestinationError, LedgerError
from pipeline.job import JobHandle, find_active
from pipeline.kept_list import keep_list
from pipeline.local_run import LEAVE_PATIENCE_S
from pipeline.sealing import Seal
from pipeline.settings import Settings
from pipeline.sources import first_item, folder_of, open_collection
from pipeline.state import JobStore, connect
from pipeline.storage import absolute, reason_of, require_no_secret
from pipeline.urls import redact

if TYPE_CHECKING:
    # Imported on use, since it takes a second.
    from distributed import Client

    from pipeline.runner.cluster import ClusterPlace

Place = str | os.PathLike[str]

# What a run was asked to do: its collection, its job but for an id that was made for it, and where and how.
Asked = tuple[Place | Sequence[Place], Job, tuple[Any, ...]]

_ANY_ID: Final = "any"
_asked_by_id: Final[dict[str, Asked]] = {}


def run(
    collection: Place | Sequence[Place],
    destination: Place,
    recipe: Recipe | None = None,
    *,
    output: Output = "files",
    force: bool = False,
    deduplicate: bool = False,
    job_id: str | None = None,
    client: Client | None = None,
    cluster: ClusterPlace | None = None,
    workers: int | None = None,
    url_column: str = "url",
    key_column: str | None = None,
    hash_column: str | None = None,
    carry_columns: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
    allow_private: bool | None = None,
    follow_links: bool = False,
    timeout: float = 30.0,
    retries: int = 2,
    connections_per_host: int = 16,
    requests_per_second: float | None = None,
    respect_robots: bool = True,
    user_agent: str | None = None,
    image_timeout: float = 10.0,
    image_memory_mib: int = 1024,
    dask_report: str | os.PathLike[str] | None = None,
) -> JobHandle:
    """Fetch, resize, enhance and store every image of a collection; returns at once.

    In a notebook, a live widget shows it; where nobody looks on (papermill, nbconvert), its bars are shown to its end,
    and only then this returns. Elsewhere `JobHandle.wait` shows bars on a terminal.

    Images that an earlier job has made already of the same bytes, by the same Recipe and at the same destination, are
    ``skipped``: see docs/incremental.md for how that is told.

    Running the same `job_id` again resumes it: what its ledger has already is not done again. While it is under way in
    this process, asking for the same work again returns it: a notebook's cell may be run twice.

    Parameters
    ----------
    collection : path, glob, URL, manifest, or a sequence of paths and URLs
        See `pipeline.sources`.
    destination : path or URL
        The folder of the results, ``DESTINATION/KEY.EXT``, and of the ledger.
    recipe : Recipe, optional
    output : {"files", "webdataset"}
        With ``webdataset``, the results are in shards, ``DESTINATION/JOB-000000.tar`` and so on: tar files of about 500
        MB, in which each image has a JSON file beside it.
    force : bool
        Whether images that are at the destination already are made again.
    deduplicate : bool
        Whether of images with the same bytes only the first is made; the others are ``skipped``, and their output is
        that of the first one. Without it all are made, and the ledger tells which are duplicates.
    job_id : str, optional
        A name of yours; one made of the time if not given.
    client : distributed.Client, optional
        An open client, which stays open.
    cluster : str, path, mapping or distributed cluster, optional
        A scheduler's address; the path of a scheduler file (``.json``) or of a settings file (``.toml``) that may name
        any class of Dask's, or a mapping with the same keys, see docs/clusters.md; or an open cluster. Without it
        ``PIPELINE_CLUSTER``, and without that a local cluster that lives as long as the run.
    workers : int, optional
        Processes of the local cluster; one a core if not given.
    url_column : str
        The manifest's column that holds the URLs.
    key_column : str, optional
        The one that holds the names of the results, each its own: ``DESTINATION/KEY.EXT``. Without it they are made of
        the URLs.
    hash_column : str, optional
        The one that holds hashes of the source's bytes (``sha256:…``, ``md5:…``, or digits alone): an image whose bytes
        have another one fails. A row without a hash is not checked.
    carry_columns : sequence of str
        Further columns that are written into the ledger, as text.
    storage_options : mapping, optional
        As in fsspec; never written down, so whoever resumes the job elsewhere gives them again.
    allow_private : bool, optional
        Whether sources may be on addresses that are not public; ``PIPELINE_ALLOW_PRIVATE`` if not given.
    follow_links : bool
        Whether a folder's links to files outside of it are followed, see docs/security.md; else such images fail.
    timeout : float
        Seconds for one whole answer of a source.
    retries : int
        How often a source that fails in a way that may pass is asked again.
    connections_per_host, requests_per_second, respect_robots, user_agent
        How gently web servers are asked, and who they hear asks: see `FetchPolicy` and docs/fetching.md.
    image_timeout, image_memory_mib
        What one image may take: see `ImageLimits` and docs/images.md.
    dask_report : path, optional
        The HTML file for Dask's own performance report of the run; `JobHandle.report` is ours.

    Returns
    -------
    JobHandle
        In a script, end with ``.wait()``: the run ends with its process. (Since workers are processes, a script needs
        the usual ``if __name__ == "__main__":``.)

    Raises
    ------
    JobConflictError
        If another process runs a job of that id, or the id belongs to a job of another collection, destination, recipe,
        columns or output.
    RecipeError, ModelError, SourceError, DestinationError, StateError, ClusterError, SettingsError
        Before any work begins, if it cannot be done.
    """
    settings = Settings.from_environ()
    recipe = recipe or Recipe()
    if not isinstance(collection, str | os.PathLike):
        collection = list(collection)
    choose_model(recipe, settings)
    policy = FetchPolicy(
        timeout,
        retries,
        allow_private=settings.allow_private if allow_private is None else allow_private,
        connections_per_host=connections_per_host,
        requests_per_second=requests_per_second,
        respect_robots=respect_robots,
        user_agent=user_agent,
    )
    place = absolute(collection) if isinstance(collection, str | os.PathLike) else "a list"
    columns = (url_column, key_column, hash_column, carry_columns)
    how = (output, force, deduplicate)
    limits = ImageLimits(image_timeout, image_memory_mib)
    job = Job(job_id or new_job_id(), place, absolute(destination), recipe, policy, *columns, *how, limits)
    require_no_secret(job.destination)
    where = (storage_options, client, cluster, workers, dask_report, follow_links)
    asked = (collection, replace(job, id=job_id or _ANY_ID), where)
    if active := _find_active(asked):
        active.show()
        return active
    if job_id and (ending := find_active(job_id)) and not ending.goes_on:
        ending.join(LEAVE_PATIENCE_S)
    folder = _check_readable(collection, job, storage_options)
    job = replace(job, fetch=replace(policy, within=None if follow_links else folder))
    store = _store_of(settings)
    connect_cluster = choose_cluster(settings, client, cluster, workers)
    if dask_report is not None:
        connect_cluster = with_dask_report(connect_cluster, Path(dask_report))
    job = _settle(collection, job, store.seal, storage_options)
    # Imported before the job is known to others: Ctrl-C in this second leaves no job that nobody runs.
    importlib.import_module("pipeline.runner.driver")
    store.create(job)
    handle = JobHandle(job, store, settings, storage_options)
    handle.start(connect_cluster)
    _asked_by_id[job.id] = asked
    handle.show()
    return handle


def _find_active(asked: Asked) -> JobHandle | None:
    """Return the run of this process that does already what is asked for."""
    for job_id in list(_asked_by_id):
        active = find_active(job_id)
        if active is None:
            _asked_by_id.pop(job_id, None)
        # A run that has ended is active for as long as its cluster takes to close.
        elif _asked_by_id.get(job_id) == asked and active.goes_on:
            return active
    return None


def attach(job_id: str, *, storage_options: Mapping[str, Any] | None = None) -> JobHandle:
    """Return the handle on a job that any process runs or has run; in a notebook, the same widget shows it.

    Parameters
    ----------
    job_id : str
    storage_options : mapping, optional
        As in fsspec, where its ledger needs them; those of a run of this process are known.

    Raises
    ------
    JobNotFoundError
        If no job has that id.
    StateError, SettingsError
        If Redis does not answer, or the environment means nothing.
    """
    settings = Settings.from_environ()
    store = _store_of(settings)
    handle = find_active(job_id) or JobHandle(store.load_job(job_id), store, settings, storage_options)
    handle.show()
    return handle


def models() -> list[ModelCard]:
    """List the enhancement models that a Recipe may name: the shipped ones, then those that were registered.

    Raises
    ------
    ModelError
        If the settings file that registers models (``PIPELINE_MODELS``) cannot be read.
    """
    return list_models(Settings.from_environ().models)


def jobs(limit: int = 50) -> list[JobHandle]:
    """Return the recent jobs, the newest first; a notebook shows them as a table.

    Parameters
    ----------
    limit : int
        How many at most.

    Returns
    -------
    list of JobHandle
        Without storage options: `attach` takes those that a ledger needs.

    Raises
    ------
    StateError, SettingsError
        If Redis does not answer, or the environment means nothing.
    """
    settings = Settings.from_environ()
    store = _store_of(settings)
    found = store.jobs(limit)
    return JobList([find_active(job.id) or JobHandle(job, store, settings) for job, _ in found], found)


def new_job_id() -> str:
    """Make a job's id of the time, so that ids sort by it, and of chance."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _check_readable(
    collection: Place | Sequence[Place], job: Job, storage_options: Mapping[str, Any] | None
) -> str | None:
    """Make sure that there is an image; return the local folder that the collection is, if it is one."""
    opened = open_collection(collection, columns=job.columns, storage_options=storage_options, exclude=job.destination)
    first_item(opened)
    return folder_of(opened)


def _settle(
    collection: Place | Sequence[Place], job: Job, seal: Seal, storage_options: Mapping[str, Any] | None
) -> Job:
    """Make sure that the destination can be written; return the job with its collection as any process finds it."""
    from pipeline.runner.ledger import Ledger

    try:
        Ledger(job.destination, job.id, storage_options).check_writable()
        return job if isinstance(collection, str | os.PathLike) else keep_list(collection, job, seal, storage_options)
    except LedgerError as error:
        why = reason_of(error.__cause__) if isinstance(error.__cause__, Exception) else error
        raise DestinationError(f"cannot write to the destination {redact(job.destination)!r}: {why}") from error


@functools.cache
def _store_of(settings: Settings) -> JobStore:
    """Share one connection to Redis among the handles of this process."""
    return connect(settings.redis_url, settings.data_dir, settings.secret)
