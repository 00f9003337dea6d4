"""Every worker gets the job's Equipment before its first task, those that join later too, and drops it at the end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from distributed import Client

from pipeline.errors import LeaseLostError
from pipeline.runner.events import Equipped, WorkerRefused
from pipeline.runner.losses import hand_losses_over
from pipeline.runner.named_cluster import await_workers
from pipeline.runner.tasks import EquipWorker

# How long the end of a run waits for workers that still load a model, and then for all to drop their Equipment: Dask
# complains if it is closed in between, but a worker that hangs is not to hold the run.
EQUIP_PATIENCE_S: Final = 10.0


@contextlib.contextmanager
def equipped(client: Client, plugin: EquipWorker, tell: Callable[[Equipped | WorkerRefused], None]) -> Iterator[None]:
    """Equip the workers in the background, and take their Equipment back at the end of the block.

    An event says when all have it: a worker that hangs while it loads a model cannot hold a run that is cancelled.

    Parameters
    ----------
    client : distributed.Client
    plugin : EquipWorker
    tell : callable
        Called from any thread: once with Equipped, and with WorkerRefused for each worker that could not be.
    """
    is_given_up = threading.Event()

    def equip() -> None:
        error: Exception | None = None
        try:
            await_workers(client, plugin.enhance_resources, is_given_up)
            hand_losses_over(client)
            client.register_plugin(plugin)
        except Exception as caught:  # noqa: BLE001 - raised again, in the driver's thread
            error = caught
        tell(Equipped(error))

    def hear(event: tuple[float, Any]) -> None:
        # Any client may write to a topic.
        match event:
            case (_, {"worker": str(worker), "reason": str(reason)}):
                tell(WorkerRefused(worker, reason))

    def unequip() -> None:
        # A scheduler that is gone has no plugins either, and of a run that was given up early there are none.
        with contextlib.suppress(OSError, ValueError):
            if client.status == "running":
                client.unsubscribe_topic(plugin.topic)
                client.unregister_worker_plugin(plugin.name)

    equipping = threading.Thread(target=equip, name="pipeline-equip", daemon=True)
    unequipping = threading.Thread(target=unequip, name="pipeline-unequip", daemon=True)
    client.subscribe_topic(plugin.topic, hear)
    equipping.start()
    has_successor = False
    try:
        yield
    except LeaseLostError:
        has_successor = True
        raise
    finally:
        is_given_up.set()
        equipping.join(EQUIP_PATIENCE_S)
        # Whoever has taken the job over has put his Equipment in the place of ours.
        if not has_successor:
            unequipping.start()
            unequipping.join(EQUIP_PATIENCE_S)
