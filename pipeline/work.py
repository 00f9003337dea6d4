"""QueueWorker: runs the jobs that wait in the queue, on one cluster that stays warm."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pipeline.choosing import choose_model
from pipeline.domain import Recipe
from pipeline.errors import ClusterError, PipelineError, StateError
from pipeline.job import JobHandle
from pipeline.settings import Settings
from pipeline.state import Claim, JobStore, driver_name

if TYPE_CHECKING:
    from distributed import Client
    from redis.client import PubSub

log = logging.getLogger(__name__)

# How long a queue worker that hears nothing waits before it looks for jobs whose worker died.
LOOK_S: Final = 1.0
# How long a queue worker counts as alive after its last word.
WORKER_TTL_S: Final = 10.0
_ANNOUNCE_S: Final = 3.0

# How long running jobs are given to end when the worker is asked to, and a lost cluster or Redis to come back.
LEAVE_PATIENCE_S: Final = 20.0
_REPAIR_S: Final = 2.0


class QueueWorker:
    """Runs jobs of the queue, several at a time.

    Parameters
    ----------
    store : JobStore
    settings : Settings
    jobs_at_once : int
    workers : int, optional
        Processes of the local cluster; one a core if not given.
    """

    def __init__(self, store: JobStore, settings: Settings, jobs_at_once: int = 4, workers: int | None = None) -> None:
        self._store = store
        self._settings = settings
        self._jobs_at_once = jobs_at_once
        self._workers = workers
        self._running: dict[str, JobHandle] = {}
        self._is_stopping = threading.Event()
        # A job has ended, or the worker is to end.
        self._has_room = threading.Event()
        self._announced_at_s = float("-inf")
        self._name = driver_name()

    def stop(self) -> None:
        """Ask `run` to end: jobs that run are left to the next worker; from any thread or signal handler."""
        self._is_stopping.set()
        self._has_room.set()

    def run(self) -> None:
        """Run jobs until `stop` is called.

        A cluster or a Redis that is lost is waited for; what ran meanwhile has ended as its driver saw fit.
        """
        while not self._is_stopping.is_set():
            try:
                with self._cluster() as client:
                    self._serve(client)
            except (ClusterError, OSError) as error:
                self._wait_for_repair(error)
        with contextlib.suppress(StateError):
            self._store.queue.withdraw_worker(self._name)

    @contextlib.contextmanager
    def _cluster(self) -> Iterator[Client]:
        from pipeline.runner.cluster import open_client
        from pipeline.runner.tasks import WarmWorker

        with open_client(self._settings.cluster, self._workers) as client:
            if card := choose_model(Recipe(), self._settings):
                client.register_plugin(WarmWorker(card))
            try:
                yield client
            finally:
                self._leave_jobs()

    def _serve(self, client: Client) -> None:
        log.info("ready for jobs, %d at a time", self._jobs_at_once)
        while not self._is_stopping.is_set():
            # A Redis that is gone for a while costs neither the cluster nor the jobs that run.
            try:
                with contextlib.closing(self._store.queue.listen()) as news:
                    self._take_jobs(client, news)
            except StateError as error:
                self._wait_for_repair(error)

    def _take_jobs(self, client: Client, news: PubSub) -> None:
        while not self._is_stopping.is_set():
            if client.status != "running":
                raise ClusterError("the Dask cluster is gone; it is opened again")
            self._announce()
            if len(self._running) == self._jobs_at_once:
                self._has_room.wait(LOOK_S)
                self._has_room.clear()
            elif claim := self._store.queue.claim():
                self._start(claim, client)
            else:
                self._store.queue.wait(news, LOOK_S)

    def _wait_for_repair(self, error: Exception) -> None:
        log.error("the queue waits: %s", error)
        self._is_stopping.wait(_REPAIR_S)

    def _start(self, claim: Claim, client: Client) -> None:
        log.info("job starts", extra={"job_id": claim.job_id})
        try:
            handle = JobHandle(self._store.load_job(claim.job_id), self._store, self._settings)
            self._running[handle.id] = handle
            handle.drive(
                lambda: nullcontext(client), claim.lease, redo=claim.redo, on_end=lambda: self._forget(handle.id)
            )
        except PipelineError as error:
            self._forget(claim.job_id)
            log.warning("job cannot run: %s", error, extra={"job_id": claim.job_id})
            with contextlib.suppress(StateError):
                claim.lease.publish(replace(self._store.progress(claim.job_id), status="failed", error=str(error)))

    def _forget(self, job_id: str) -> None:
        self._running.pop(job_id, None)
        self._has_room.set()

    def _announce(self) -> None:
        now = time.monotonic()
        if now - self._announced_at_s > _ANNOUNCE_S:
            about = {"jobs": len(self._running), "jobsAtOnce": self._jobs_at_once}
            self._store.queue.announce_worker(self._name, about, WORKER_TTL_S)
            self._announced_at_s = now

    def _leave_jobs(self) -> None:
        leaving = list(self._running.values())
        for handle in leaving:
            handle.leave()
        deadline = time.monotonic() + LEAVE_PATIENCE_S
        for handle in leaving:
            handle.join(max(0.0, deadline - time.monotonic()))
        self._running.clear()
