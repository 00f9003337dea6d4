"""``/jobs``: submit, list, follow, cancel and retry."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from tornado.web import stream_request_body

from pipeline.domain import Job
from pipeline.errors import PipelineError
from pipeline.interfaces.server.base import Guarded
from pipeline.interfaces.server.errors import RequestError
from pipeline.interfaces.server.presenting import Snapshot, job_folder, present_outcome, url_digest
from pipeline.interfaces.server.submission import Submission, parse_json, read_recipe, read_submission
from pipeline.interfaces.server.uploads import UploadReceiver

MAX_PAGE: Final = 1000
# A larger body is read off the loop.
_LARGE_BYTES: Final = 32 * 2**10
_STATUSES: Final = ("stored", "skipped", "failed")


@stream_request_body
class Jobs(Guarded):
    """``POST /jobs`` and ``GET /jobs``."""

    _refused: PipelineError | None = None
    _upload: UploadReceiver | None = None
    _job: Job | None = None

    def prepare(self) -> None:
        """Look at the headers before the body comes."""
        super().prepare()
        if self._finished or self.request.method != "POST":
            return
        self._body = bytearray()
        try:
            self._expect_body()
        except PipelineError as error:
            # Nobody waits for what will not be read.
            self.set_header("Connection", "close")
            self.refuse(error)

    def _expect_body(self) -> None:
        limits = self.services.options.limits
        if wait_s := self.services.submissions.seconds_to_wait(self.client.name):
            raise RequestError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"too many submissions; allowed are {limits.submissions_per_second:g} a second",
                {"Retry-After": str(wait_s)},
            )
        content_type = self.request.headers.get("Content-Type", "")
        kind = content_type.partition(";")[0].strip().lower()
        if kind not in {"application/json", "multipart/form-data"}:
            raise RequestError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"the body is {kind[:100] or 'of no type'}; allowed are application/json and multipart/form-data",
            )
        self._most_bytes = limits.json_bytes if kind == "application/json" else limits.upload_bytes
        length = self.request.headers.get("Content-Length", "0")
        if length.isascii() and length.isdigit() and (len(length) > 15 or int(length) > self._most_bytes):
            raise self._too_large()
        if kind == "multipart/form-data":
            self._job = self.services.make_job(Submission())
            folder = job_folder(self.services.options.root, self._job.id)
            self._upload = UploadReceiver(content_type, folder, limits)

    def data_received(self, chunk: bytes) -> None:
        """Take a piece of the body; after an error, the rest is let pass."""
        if self._finished or self._refused:
            return
        self._seen_bytes = getattr(self, "_seen_bytes", 0) + len(chunk)
        try:
            if self._seen_bytes > self._most_bytes:
                raise self._too_large()
            if self._upload:
                self._upload.feed(chunk)
            else:
                self._body += chunk
        except PipelineError as error:
            self._refused = error
        except (OSError, ValueError) as error:
            # Its own words name a path.
            reason = getattr(error, "strerror", None) or type(error).__name__
            self._refused = RequestError(HTTPStatus.SERVICE_UNAVAILABLE, f"the upload cannot be stored: {reason}")

    async def post(self) -> None:
        """Let a job wait for a queue worker."""
        # From here on it is not the connection's: a client that has gone still has its job.
        upload, self._upload = self._upload, None
        if self._refused:
            if upload:
                upload.discard()
            raise self._refused
        job = await (self._submit_upload(upload) if upload else self._submit_json())
        self.set_header("Location", f"{self.prefix}/jobs/{job.id}")
        self.answer({"jobId": job.id, "status": "queued"}, HTTPStatus.ACCEPTED)

    async def _submit_json(self) -> Job:
        def read() -> Submission:
            return read_submission(parse_json(bytes(self._body)), self.services.options)

        submission = await self.services.parse(read) if len(self._body) > _LARGE_BYTES else read()
        return await self.services.call(self.services.submit, submission, self.client)

    async def _submit_upload(self, upload: UploadReceiver) -> Job:
        assert self._job is not None
        try:
            upload.finish()
            options = parse_json(upload.options, "options") if upload.options else {}
            submission = Submission(recipe=read_recipe(options), job_id=self._job.id)
        except BaseException:
            upload.discard()
            raise
        return await self.services.call_files(self.services.submit_upload, submission, self.client, upload)

    async def get(self) -> None:
        """List the newest jobs."""
        limit = read_limit(self, 50)
        owner = "" if self.client.is_admin else self.client.name
        texts = await self.services.call(self.services.store.list_shown, owner, limit)
        shown = (Snapshot.of_text(text, self.services.options.root).text for text in texts)
        self.answer(f'{{"jobs": [{", ".join(shown)}]}}')

    def on_connection_close(self) -> None:
        """Keep nothing of an upload whose client has gone."""
        self._discard_upload()

    def _discard_upload(self) -> None:
        if self._upload:
            self._upload.discard()
            self._upload = None

    def _too_large(self) -> RequestError:
        return RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is too large; allowed are {self._most_bytes} bytes"
        )


class OneJob(Guarded):
    """``GET`` and ``DELETE /jobs/ID``, also as ``/job/ID``."""

    async def get(self, job_id: str) -> None:
        """Say how a job stands."""
        self.answer((await self.services.show(job_id, self.client)).text)

    async def delete(self, job_id: str) -> None:
        """Cancel a job; one that has ended stays as it is."""
        await self.services.show(job_id, self.client)
        progress = await self.services.call(self.services.store.request_cancel, job_id)
        self.answer({"jobId": job_id, "status": progress.status}, HTTPStatus.ACCEPTED)


class Retry(Guarded):
    """``POST /jobs/ID/retry``."""

    async def post(self, job_id: str) -> None:
        """Let a job wait to be run again: what failed, and what is left."""
        services = self.services
        await services.show(job_id, self.client)
        await services.call(services.store.queue.resubmit, job_id, services.options.limits.waiting_jobs)
        self.answer({"jobId": job_id, "status": "queued"}, HTTPStatus.ACCEPTED)


class Items(Guarded):
    """``GET /jobs/ID/items``: the job's ledger, in pages."""

    async def get(self, job_id: str) -> None:
        """Answer one page, in the order of the keys."""
        await self.services.show(job_id, self.client)
        status = self.get_query_argument("status", "")
        if status and status not in _STATUSES:
            raise RequestError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"status is {status[:100]!r}; allowed is {', '.join(_STATUSES)}"
            )
        limit = read_limit(self, 100)
        after = self.get_query_argument("after", "", strip=False)
        read = functools.partial(self._read_page, job_id, status, after, limit)
        self.answer(await self.services.call_files(read))

    def _read_page(self, job_id: str, status: str, after: str, limit: int) -> Mapping[str, Any]:
        from pipeline.runner.ledger import Ledger

        job = self.services.store.load_job(job_id)
        own = job_folder(self.services.options.root, job_id)
        table = Ledger(job.destination, job_id).read()
        chosen = pc.greater(table["key"], after)
        if status:
            chosen = pc.and_(chosen, pc.equal(table["status"], status))
        rows: pa.Table = table.filter(chosen).sort_by("key")
        page = rows.slice(0, limit).to_pylist()
        own_folder = own if job.destination == str(own) else None
        return {
            "items": [
                present_outcome(row, job_id, own_folder) | url_digest(row, job_id, self.services.store.seal)
                for row in page
            ],
            "next": page[-1]["key"] if len(rows) > limit else None,
        }


def read_limit(handler: Guarded, default: int) -> int:
    """Read the query's ``limit``."""
    text = handler.get_query_argument("limit", str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_PAGE):
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"limit is {text[:20]!r}; allowed is a whole number from 1 to {MAX_PAGE}"
        )
    return int(text)
