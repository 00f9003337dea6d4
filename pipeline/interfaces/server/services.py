"""What the handlers of one server share, and the jobs that they make."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar

from pipeline.choosing import choose_model
from pipeline.domain import Job
from pipeline.errors import DestinationError, JobNotFoundError
from pipeline.interfaces.server.access import TokenBucket
from pipeline.interfaces.server.errors import RequestError
from pipeline.interfaces.server.metrics import Metrics
from pipeline.interfaces.server.options import Client, Limits, ServerOptions
from pipeline.interfaces.server.presenting import UPLOADS, Snapshot, job_folder, uploads_folder
from pipeline.interfaces.server.relay import Relay
from pipeline.interfaces.server.submission import Submission
from pipeline.interfaces.server.uploads import UploadReceiver
from pipeline.kept_list import keep_list
from pipeline.launch import new_job_id
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
    _state_threads: ThreadPoolExecutor
    _file_threads: ThreadPoolExecutor
    _parsing_thread: ThreadPoolExecutor

    @classmethod
    def of(cls, options: ServerOptions, settings: Settings, store: JobStore) -> Services:
        """Make what a server needs; on the loop that will serve."""
        threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="pipeline-state")
        loop = asyncio.get_running_loop()
        relay = Relay(
            open_async_redis(store.url),
            lambda job_id: loop.run_in_executor(threads, store.shown, job_id),
            options.root,
        )
        limits = options.limits
        bucket = TokenBucket(limits.submissions_per_second, limits.submission_burst, time.monotonic)
        return cls(
            *(options, settings, store, relay, Metrics(), bucket, Counter(), threads),
            _file_threads=ThreadPoolExecutor(_THREADS, thread_name_prefix="pipeline-files"),
            _parsing_thread=ThreadPoolExecutor(1, thread_name_prefix="pipeline-parsing"),
        )

    @property
    def limits(self) -> Limits:
        """How much it takes."""
        return self.options.limits

    async def call(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Ask Redis, off the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._state_threads, function, *arguments)

    async def call_files(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Do what reads ledgers and images, which may be far away: nobody who asks Redis waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._file_threads, function, *arguments)

    async def parse(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Read a large body off the loop, one at a time: threads would only share one core."""
        return await asyncio.get_running_loop().run_in_executor(self._parsing_thread, function, *arguments)

    def close(self) -> None:
        """End the threads."""
        for threads in (self._state_threads, self._file_threads, self._parsing_thread):
            threads.shutdown(wait=False, cancel_futures=True)

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

    async def require_visible(self, job_id: str, client: Client) -> None:
        """Raise JobNotFoundError unless there is such a job and the client may see it."""
        owner = self.relay.owner_of(job_id)
        if owner is None:
            await self.show(job_id, client)
        elif not may_see(client, owner):
            raise JobNotFoundError(f"no job {job_id!r}")

    def submit(self, submission: Submission, client: Client) -> Job:
        """Put a job into the queue; blocks.

        Raises
        ------
        PipelineError
            If the recipe, the id or the queue do not allow it; nothing is left of it then.
        """
        job = self.make_job(submission)
        if submission.destination:
            self._enqueue(job, client)
            return job
        with self._folder_of(job):
            if len(submission.urls) > 1:
                job = keep_list(submission.urls, job, self.store.seal)
            self._enqueue(job, client)
        return job

    def submit_upload(self, submission: Submission, client: Client, upload: UploadReceiver) -> Job:
        """Put a job of uploaded files into the queue; blocks. If that fails, nothing is left of it.

        Raises
        ------
        PipelineError
            If the recipe or the queue do not allow it.
        """
        try:
            job = self.make_job(submission)
            # Whatever becomes of the list of files, nothing else is fetched.
            places = (str(uploads_folder(self.options.root, job.id)),)
            job = replace(job, collection=job.destination, fetch=replace(job.fetch, places=places))
            job = keep_list([str(path) for path in upload.files], job, self.store.seal, name=UPLOADS)
            self._enqueue(job, client)
        except BaseException:
            upload.discard()
            raise
        return job

    def make_job(self, submission: Submission) -> Job:
        """Make the Job of a submission; its list of images is still to be written."""
        choose_model(submission.recipe, self.settings)
        job_id = submission.job_id or f"{new_job_id()}{secrets.token_hex(4)}"
        own = str(job_folder(self.options.root, job_id))
        collection = submission.collection or (submission.urls[0] if len(submission.urls) == 1 else own)
        # A manifest that a client may read can name anything: what it names is looked at too.
        places = (*_WEB, *self.options.collections) if submission.collection else _WEB
        policy = replace(self.options.fetching, allow_private=self.options.allow_private, places=places)
        destination = submission.destination or own
        return Job(job_id, collection, destination, submission.recipe, policy, limits=self.options.images)

    @contextlib.contextmanager
    def _folder_of(self, job: Job) -> Iterator[None]:
        """Make the folder of a job's results, which nobody else can have made; remove it if the block fails.

        It outlives the job's state, which expires: a second job of the same id would be given the first one's images.
        """
        folder = job_folder(self.options.root, job.id)
        try:
            folder.mkdir()
        except FileExistsError:
            message = f"job {job.id!r} exists already: choose another id, or retry that one"
            raise RequestError(HTTPStatus.CONFLICT, message) from None
        except OSError as error:
            raise DestinationError(f"cannot make a folder for job {job.id!r}: {error.strerror or error}") from error
        try:
            yield
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _enqueue(self, job: Job, client: Client) -> None:
        self.store.queue.submit(job, client.name, self.options.limits.waiting_jobs)


def may_see(client: Client, owner: str) -> bool:
    """Whether a client may see a job: his own; an administrator sees all."""
    return client.is_admin or owner == client.name
