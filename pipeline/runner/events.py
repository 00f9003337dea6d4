"""What happens to a run: everything that its driver acts on, through one queue."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Literal

from distributed import Future

from pipeline.domain import Stage

# What a task does: a stage; or find out what was fetched; or all after that, in the sandbox.
Step = Stage | Literal["digest", "sandbox"]


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A task has ended, well or not."""

    batch_number: int
    step: Step
    future: Future


@dataclass(frozen=True, slots=True)
class Equipped:
    """Every worker has the job's Equipment, or cannot have it for the reason given."""

    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class WorkerRefused:
    """A worker cannot have the job's Equipment; if it has joined in mid-run, this is all that is heard of it."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Counted:
    """The collection has been counted."""

    total: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants the run to stop."""


@dataclass(frozen=True, slots=True)
class LeaveRequested:
    """The process is to end, and another one to go on with the job."""


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """Another driver has taken the job over."""


Event = TaskEnded | Equipped | WorkerRefused | Counted | CancelRequested | LeaveRequested | LeaseTaken


class EventQueue:
    """Events of any thread, for one that acts on them."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def put(self, event: Event) -> None:
        """Add an event."""
        self._events.put(event)

    def take(self, timeout_s: float) -> list[Event]:
        """Wait for an event, for a moment; return it with all that have come since."""
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=timeout_s))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events
