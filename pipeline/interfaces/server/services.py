"""What the handlers of one server share, and the jobs that they make."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar

from pipeline.domain import FetchPolicy, Job
from pipeline.errors import JobNotFoundError, QueueFullError
from pipeline.interfaces.server.access import TokenBucket
from pipeline.interfaces.server.errors import RequestError
from pipeline.interfaces.server.metrics import Metrics
from pipeline.interfaces.server.options import Client, ServerOptions
from pipeline.interfaces.server.presenting import UPLOADS, Snapshot, job_folder, uploads_folder
from pipeline.interfaces.server.relay import Relay
from pipeline.interfaces.server.submission import Submission
from pipeline.job import choose_model
from pipeline.launch import keep_list, new_job_id
from pipeline.settings import Settings
from pipeline.state import JobStore, open_async_redis

Answer = TypeVar("Answer")

_WEB = ("http://", "https://")

# Threads for what blocks: Redis, the ledger, files.
_THREADS = 8


@dataclass(slots=True)
class Services:
    """What the handlers of one server share.

    Attributes
    ----------
    options : ServerOptions
    settings : Settings
    store : JobStore
    relay : Relay
    metrics : Metrics
    submissions : TokenBucket
    sockets_by_client : Counter of str
    """

    options: ServerOptions
    settings: Settings
    store: JobStore
    relay: Relay
    metrics: Metrics
    submissions: TokenBucket
    sockets_by_client: Counter[str]
    _threads: ThreadPoolExecutor

    @classmethod
    def of(cls, options: ServerOptions, settings: Settings, store: JobStore) -> Services:
        """Make what a server needs; on the loop that will serve."""
        threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="pipeline-server")
        loop = asyncio.get_running_loop()
        relay = Relay(
            open_async_redis(store.url),
            lambda job_id: loop.run_in_executor(threads, store.shown, job_id),
            options.root,
        )
        limits = options.limits
        bucket = TokenBucket(limits.submissions_per_second, limits.submission_burst, time.monotonic)
        return cls(options, settings, store, relay, Metrics(), bucket, Counter(), threads)

    async def call(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Do what blocks, off the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def show(self, job_id: str, client: Client) -> Snapshot:
        """Return the state of a job that a client may see.

        Raises
        ------
        JobNotFoundError
            If there is none, or it is another client's: whether one exists is nobody's business.
        """
        shown = await self.call(self.store.shown, job_id)
        if not may_see(client, shown.owner):
            raise JobNotFoundError(f"no job {job_id!r}")
        return Snapshot.of_text(shown.text, self.options.root)

    def submit(self, submission: Submission, client: Client) -> Job:
        """Put a job into the queue; blocks.

        Raises
        ------
        PipelineError
            If the recipe, the id or the queue do not allow it; nothing is left of it then.
        """
        job = self.make_job(submission)
        is_listed = len(submission.urls) > 1
        if is_listed:
            self.require_room(job.id)
            job = keep_list(submission.urls, job)
        self.enqueue(job, client, owns_folder=is_listed)
        return job

    def make_job(self, submission: Submission) -> Job:
        """Make the Job of a submission; its list of images is still to be written."""
        choose_model(submission.recipe, self.settings)
        job_id = submission.job_id or f"{new_job_id()}{secrets.token_hex(4)}"
        own = str(job_folder(self.options.root, job_id))
        collection = submission.collection or (submission.urls[0] if len(submission.urls) == 1 else own)
        # A manifest that a client may read can name anything: what it names is looked at too.
        places = (*_WEB, *self.options.collections) if submission.collection else _WEB
        policy = FetchPolicy(allow_private=self.options.allow_private, places=places)
        return Job(job_id, collection, submission.destination or own, submission.recipe, policy)

    def require_room(self, job_id: str) -> None:
        """Refuse a job early, before files are written for it, if its id is taken or the queue is full."""
        limit = self.options.limits.waiting_jobs
        if self.store.queue.counts().waiting >= limit:
            raise QueueFullError(f"{limit} jobs wait already: try again later")
        if job_folder(self.options.root, job_id).exists():
            raise RequestError(
                HTTPStatus.CONFLICT, f"job {job_id!r} exists already: choose another id, or retry that one"
            )

    def enqueue(self, job: Job, client: Client, *, owns_folder: bool) -> None:
        """Put a job into the queue; if that fails, remove the folder that was made for it."""
        try:
            self.store.queue.submit(job, client.name, self.options.limits.waiting_jobs)
        except BaseException:
            if owns_folder:
                shutil.rmtree(job_folder(self.options.root, job.id), ignore_errors=True)
            raise

    def with_uploads(self, job: Job, paths: list[str]) -> Job:
        """Give a job its uploaded files as its collection."""
        places = (str(uploads_folder(self.options.root, job.id)),)
        job = replace(job, collection=job.destination, fetch=replace(job.fetch, places=places))
        return keep_list(paths, job, name=UPLOADS)


def may_see(client: Client, owner: str) -> bool:
    """Whether a client may see a job: his own; an administrator sees all."""
    return client.is_admin or owner == client.name
