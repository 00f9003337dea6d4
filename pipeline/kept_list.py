"""The list of images that a job is given by itself, kept beside its ledger for whoever goes on with it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.domain import Job
from pipeline.sealing import Seal, has_secret, list_purpose
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

    URLs with secrets are sealed: the job reads them again, and nobody who points at that file.

    Raises
    ------
    LedgerError, SealError
        If it cannot be written.
    """
    from pipeline.runner.ledger import Ledger

    urls = [absolute(entry) for entry in entries]
    purpose = list_purpose(job.id)
    lines = "".join(f"{json.dumps(seal.seal(url, purpose) if has_secret(url) else url)}\n" for url in urls)
    # Named by its content: another list under the same id is another collection.
    content = "".join(f"{json.dumps(url)}\n" for url in urls)
    digest = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
    ledger = Ledger(job.destination, job.id, storage_options)
    return replace(job, collection=ledger.save(f"{name}-{digest}.jsonl", lines))
