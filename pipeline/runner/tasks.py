"""The Dask tasks: one function a stage, each on a batch, and the worker plugin that equips them.

A batch is a chain of tasks with the keys ``("fetch-<job>", run, number)``, ``("resize-<job>", run, number)`` and so
on: Dask's dashboard and metrics take the prefix (``fetch``) and the group (``fetch-<job>``) from them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from distributed import Worker, WorkerPlugin, get_worker, secede
from fsspec.asyn import get_loop

from pipeline.catalogue import ModelCard
from pipeline.domain import Item, Job, Outcome, Stage
from pipeline.errors import PipelineError
from pipeline.runner.images import Carried, Equipment, shared_model


class EquipWorker(WorkerPlugin):  # type: ignore[misc]  # Dask ships no types
    """Makes the Equipment of one run on every worker, those that join later included.

    The tasks find it by the job's id, so that neither the Recipe nor a credential travels with every task. A run that
    resumes the job replaces what a killed one may have left.
    """

    def __init__(
        self,
        job: Job,
        card: ModelCard | None = None,
        storage_options: Mapping[str, Any] | None = None,
        equipment_type: type[Equipment] = Equipment,
    ) -> None:
        self.name = _plugin_name(job.id)
        self.job = job
        self.card = card
        self.storage_options = storage_options
        self.equipment_type = equipment_type
        self.equipment: Equipment | None = None

    async def setup(self, worker: Worker) -> None:
        """Load the model and open the session, before the worker's first task."""
        self.equipment = await asyncio.to_thread(
            self.equipment_type, self.job, self.card, self.storage_options, worker.state.nthreads
        )

    async def teardown(self, worker: Worker) -> None:
        """Close the session; of a run that was cancelled while this worker was still loading, there is none yet."""
        if not self.equipment:
            return
        # The session lives on the loop that the fetches ran on.
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.equipment.aclose(), get_loop()))


class WarmWorker(WorkerPlugin):  # type: ignore[misc]
    """Loads a model on every worker before a job asks for it; a failure is the job's to report."""

    def __init__(self, card: ModelCard) -> None:
        self.name = "pipeline-warm"
        self.card = card

    async def setup(self, worker: Worker) -> None:
        """Load the model."""
        with contextlib.suppress(PipelineError):
            await asyncio.to_thread(shared_model, self.card, worker.state.nthreads)


def fetch_batch(job_id: str, items: Sequence[Item]) -> list[Carried]:
    """Fetch the Items of a batch concurrently, off the worker's thread pool: a slow server idles no core."""
    equipment = _equipment(job_id)
    secede()
    fetches = _fetch_together(equipment, items)
    return asyncio.run_coroutine_threadsafe(fetches, get_loop()).result()


async def _fetch_together(equipment: Equipment, items: Sequence[Item]) -> list[Carried]:
    return await asyncio.gather(*map(equipment.fetch, items))


def resize_batch(job_id: str, batch: Sequence[Carried]) -> list[Carried]:
    """Decode and scale the images of a batch."""
    return _advance(_equipment(job_id).resize, batch)


def enhance_batch(job_id: str, batch: Sequence[Carried]) -> list[Carried]:
    """Run the model on the images of a batch."""
    return _advance(_equipment(job_id).enhance, batch)


def store_batch(job_id: str, batch: Sequence[Carried]) -> list[Outcome]:
    """Encode and write the images of a batch; say what became of every Item."""
    equipment = _equipment(job_id)
    return [equipment.conclude(carried) for carried in _advance(equipment.store, batch)]


TASKS: Final[Mapping[Stage, Callable[..., Any]]] = {
    "fetch": fetch_batch,
    "resize": resize_batch,
    "enhance": enhance_batch,
    "store": store_batch,
}


def task_key(stage: Stage, job_id: str, run: str, number: int) -> tuple[str, str, int]:
    """Name a batch's task so that Dask groups it by stage and by job.

    Dask takes the words up to the first with a digit as the prefix, so an id that begins with a letter gets a 0.
    """
    group = job_id if job_id[0].isdigit() else f"0-{job_id}"
    return (f"{stage}-{group}", run, number)


def _advance(step: Callable[[Carried], Carried], batch: Sequence[Carried]) -> list[Carried]:
    return [carried if carried.failure else step(carried) for carried in batch]


def _equipment(job_id: str) -> Equipment:
    plugin: EquipWorker = get_worker().plugins[_plugin_name(job_id)]
    assert plugin.equipment is not None
    return plugin.equipment


def _plugin_name(job_id: str) -> str:
    return f"pipeline-{job_id}"
