"""The list of images that a job is given by itself, kept beside its ledger for whoever goes on with it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.domain import Job
from pipeline.sealing import Seal, has_secret, is_believed, list_purpose
from pipeline.storage import absolute


def keep_list(
    entries: Sequence[str | os.PathLike[str]],
    job: Job,
    seal: Seal,
    storage_options: Mapping[str, Any] | None = None,
    *,
    name: str = "collection",
) -> Job:
    """Write a list of images beside the ledger, where any process finds it; return the job with that collection.

    URLs with secrets, and local paths in an object store, are sealed: the job reads them again, and nobody who points
    at that file.

    Raises
    ------
    LedgerError, SealError
        If it cannot be written.
    """
    from pipeline.runner.ledger import Ledger

    urls = [absolute(entry) for entry in entries]
    purpose = list_purpose(job.id)
    is_kept_open = [not has_secret(url) and is_believed(url, job.destination) for url in urls]
    lines = "".join(
        f"{json.dumps(url if is_open else seal.seal(url, purpose))}\n"
        for url, is_open in zip(urls, is_kept_open, strict=True)
    )
    # Named by its content: another list under the same id is another collection.
    content = "".join(f"{json.dumps(url)}\n" for url in urls)
    digest = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
    ledger = Ledger(job.destination, job.id, storage_options)
    return replace(job, collection=ledger.save(f"{name}-{digest}.jsonl", lines))
