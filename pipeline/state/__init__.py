"""The state of jobs in Redis: who runs them, how far they are, and news of both for whoever watches.

`store` is the way in, `lease` a driver's, whose name `driver` knows, and `queue` the way of jobs that wait for one;
`job.lua` makes every change, `script` runs it,
`snapshot` knows the fields, `connection` the way to a server and its errors; `embedded` and `keeper` are the server
that a user gets who names none.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from pipeline.sealing import Seal
from pipeline.state.connection import open_async_redis, open_redis
from pipeline.state.driver import driver_name
from pipeline.state.embedded import embedded_server
from pipeline.state.lease import LEASE_S, Lease, Reply
from pipeline.state.queue import Claim, JobQueue, QueueCounts
from pipeline.state.script import channel_of, job_of_channel
from pipeline.state.snapshot import from_fields, to_fields
from pipeline.state.store import FINISHED_TTL_S, JobStore, Shown

__all__ = [
    "FINISHED_TTL_S",
    "LEASE_S",
    "Claim",
    "JobQueue",
    "JobStore",
    "Lease",
    "QueueCounts",
    "Reply",
    "Shown",
    "channel_of",
    "connect",
    "driver_name",
    "from_fields",
    "job_of_channel",
    "open_async_redis",
    "to_fields",
]


def connect(redis_url: str | None, data_dir: Path, secret: str | None = None) -> JobStore:
    """Open the state of jobs.

    Parameters
    ----------
    redis_url : str or None
        ``redis://``, ``rediss://`` or ``unix://``; None for the user's embedded Valkey, started if need be.
    data_dir : Path
        The folder of the embedded server, and of the key that seals; made if need be.
    secret : str, optional
        What the key is made of instead, see `pipeline.sealing`.

    Returns
    -------
    JobStore
        To be closed, or used in a ``with`` statement.

    Raises
    ------
    StateError
        If no server answers within a few seconds, or the URL means nothing.
    """
    with ExitStack() as stack:
        url = stack.enter_context(embedded_server(data_dir)) if redis_url is None else redis_url
        redis = stack.enter_context(open_redis(url))
        return JobStore(redis, url, stack.pop_all().close, Seal(data_dir, secret))
