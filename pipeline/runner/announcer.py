"""What a run tells the scheduler of itself, for the page on its dashboard.

The scheduler knows tasks, not images. Snapshots go to it as events of a topic, which any Dask scheduler takes and keeps
the last thousand of: one that shows no page needs nothing of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from distributed import Client

from pipeline.domain import Progress
from pipeline.errors import LeaseLostError, StateError
from pipeline.state import from_fields, to_fields

TOPIC: Final = "pipeline"

# As often as the page looks.
ANNOUNCE_INTERVAL_S: Final = 0.5

# How long the end of a run waits for a scheduler that is slow to take the last snapshot.
LAST_PATIENCE_S: Final = 1.0


class Announcer:
    """Sends a run's snapshots to its scheduler, now and then while it runs and the last one always.

    It never holds the run: a snapshot that comes while one is on its way is left out.

    Parameters
    ----------
    client : distributed.Client
    first : Progress
        Sent at once.
    """

    def __init__(self, client: Client, first: Progress) -> None:
        self._client = client
        self._latest = first
        self._sent_at_s = -ANNOUNCE_INTERVAL_S
        self._sending: Future[None] | None = None
        self._has_ended = False
        self.announce(first)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whoever has taken the job over announces it now.
        if error and not isinstance(error, LeaseLostError):
            # An error's message may name places; its class does not.
            self._send_last(replace(self._latest, status="failed", error=type(error).__name__))
        self._has_ended = True

    def announce(self, progress: Progress) -> None:
        """Send a snapshot, unless the last one is recent."""
        self._latest = progress = replace(progress, error="", result=None)
        if progress.is_finished:
            self._send_last(progress)
        elif time.monotonic() - self._sent_at_s >= ANNOUNCE_INTERVAL_S and (not self._sending or self._sending.done()):
            self._send(progress)

    def _send_last(self, progress: Progress) -> None:
        # The one before is not to arrive after it.
        self._await_sent()
        self._send(progress)
        self._await_sent()
        self._has_ended = True

    def _await_sent(self) -> None:
        if self._sending:
            with contextlib.suppress(OSError, TimeoutError, CancelledError):
                self._sending.result(LAST_PATIENCE_S)

    def _send(self, progress: Progress) -> None:
        if self._has_ended or self._client.status != "running":
            return
        self._sent_at_s = time.monotonic()
        sent = self._client.scheduler.log_event(topic=TOPIC, msg=to_event(progress, self._client.id))
        self._sending = asyncio.run_coroutine_threadsafe(sent, self._client.loop.asyncio_loop)


def to_event(progress: Progress, client_id: str) -> dict[str, Any]:
    """Make the event that tells a scheduler of a run, and whose it is."""
    return {"client": client_id, "job": to_fields(progress)}


def from_event(event: object) -> tuple[str, Progress] | None:
    """Read what `to_event` made; None if it is something else: any client may write to the topic."""
    match event:
        case {"client": str(client_id), "job": Mapping() as fields}:
            with contextlib.suppress(StateError):
                return client_id, from_fields(fields)
    return None
