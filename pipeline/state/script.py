"""job.lua on a server: each change of a job's state, run in one step."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

from redis import Redis

from pipeline.state.connection import redis_errors

# The sets of all jobs, of those that wait and of those that queue workers run; and the sums over all jobs.
_SHARED_KEYS: Final = ("jobs", "queue", "queue:claimed", "totals")

QUEUE_CHANNEL: Final = "queue"


class JobScript:
    """Runs the changes that job.lua knows.

    Parameters
    ----------
    redis : Redis
        Answers with text (``decode_responses``).
    where : str
        The server's redacted URL, for messages.
    """

    def __init__(self, redis: Redis, where: str) -> None:
        self._where = where
        self._script = redis.register_script(resources.files(__package__).joinpath("job.lua").read_text("utf-8"))

    def run(self, change: str, job_id: str, *arguments: str | float) -> Any:
        """Run one change; what it takes and what it answers stands in job.lua.

        Raises
        ------
        StateError
            If the server does not answer.
        """
        keys = [job_key(job_id), f"{job_key(job_id)}:lease", *_SHARED_KEYS]
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with redis_errors(self._where):
            return self._script(keys, [change, now, *arguments])


def channel_of(job_id: str) -> str:
    """Return the channel that carries a job's state, a JSON object a message."""
    return job_key(job_id)


def job_of_channel(channel: str) -> str:
    """Return the job of a channel."""
    return channel.removeprefix("job:")


def job_key(job_id: str) -> str:
    """Return the name of a job's hash, which is that of its channel too."""
    return f"job:{job_id}"
