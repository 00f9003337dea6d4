"""A task whose worker died is the driver's to deal with: the scheduler is not to lose further workers to it."""

from __future__ import annotations

import contextlib
from typing import Any

from distributed import Client
from distributed.diagnostics.plugin import SchedulerPlugin


def hand_losses_over(client: Client) -> None:
    """Have the scheduler give a task of ours up with its first worker, whatever it does with those of others.

    How often it tries (``distributed.scheduler.allowed-failures``) is a matter of the whole scheduler, which may be
    somebody else's: so each of our tasks begins with all but one of its lives spent. The plugin stays; it knows of no
    job.
    """
    # A scheduler may be told to take no code from clients: then it does what it is set to.
    with contextlib.suppress(ValueError):
        client.register_plugin(_make_plugin())


def _make_plugin() -> SchedulerPlugin:
    # A class of a function travels as a whole: the scheduler need not have this package.
    steps = {"fetch", "digest", "resize", "enhance", "store", "sandbox", "pack"}

    class HandLossesOver(SchedulerPlugin):  # type: ignore[misc]  # Dask ships no types
        name = "pipeline-losses"
        idempotent = True

        def start(self, scheduler: Any) -> None:
            self.scheduler = scheduler

        def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
            # Keys as `tasks.task_key` makes them; Dask's own have numbers there.
            is_ours = isinstance(key, tuple) and len(key) == 3 and isinstance(key[1], str)
            if is_ours and key[0].partition("-")[0] in steps and finish == "processing":
                self.scheduler.tasks[key].suspicious = self.scheduler.allowed_failures

    return HandLossesOver()
