"""job.lua on a server: each change of a job's state, run in one step."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

from redis import Redis

from pipeline.state.connection import redis_errors

_INDEX: Final = "jobs"


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
        keys = [job_key(job_id), f"{job_key(job_id)}:lease", _INDEX]
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with redis_errors(self._where):
            return self._script(keys, [change, now, *arguments])


def job_key(job_id: str) -> str:
    """Return the name of a job's hash, which is that of its channel too."""
    return f"job:{job_id}"
