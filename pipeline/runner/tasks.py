"""The Dask tasks: one function a stage, each on a batch, and the worker plugin that equips them.

A batch is a chain of tasks with the keys ``("fetch-<job>", run, number)``, ``("resize-<job>", run, number)`` and so
on: Dask's dashboard and metrics take the prefix (``fetch``) and the group (``fetch-<job>``) from them.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from distributed import Reschedule, Worker, WorkerPlugin, get_worker, secede
from distributed.protocol import pickle
from fsspec.asyn import get_loop

from pipeline.catalogue import ModelCard
from pipeline.domain import Item, Job, Outcome, Stage
from pipeline.errors import ClusterError, ModelError, PipelineError
from pipeline.runner.cluster_settings import has_resources
from pipeline.runner.images import Carried, Equipment, shared_model
from pipeline.runner.pieces import Piece
from pipeline.runner.sandbox import Sandbox
from pipeline.runner.sharded import ShardEquipment
from pipeline.runner.shared_slots import SharedSlots
from pipeline.runner.watch import StepWatch
from pipeline.stages.codec import let_pillow_open
from pipeline.stages.lender import HostLimit
from pipeline.version import __version__

# Of all jobs of a worker's process.
_WATCH: Final = StepWatch()


class EquipWorker(WorkerPlugin):  # type: ignore[misc]  # Dask ships no types
    """Makes the Equipment of one run on every worker, those that join later included.

    The tasks find it by the job's id, so that neither the Recipe nor a credential travels with every task. A run that
    resumes the job replaces what a killed one may have left.

    A worker that cannot have it says why, to its log and to the driver that has subscribed to `topic`.
    """

    def __init__(
        self,
        job: Job,
        card: ModelCard | None = None,
        storage_options: Mapping[str, Any] | None = None,
        equipment_type: type[Equipment] = Equipment,
        enhance_resources: Mapping[str, float] | None = None,
    ) -> None:
        self.name = _plugin_name(job.id)
        self.topic = f"{self.name}-{uuid.uuid4().hex[:12]}"
        self.version = __version__
        self.enhance_resources = dict(enhance_resources or {})
        # Another version of the package may not even be able to read this: the versions are compared first.
        self._pickled = pickle.dumps((job, card, storage_options, equipment_type))
        self.equipment: Equipment | None = None
        self.sandbox: Sandbox | None = None
        self.is_watched = False

    async def setup(self, worker: Worker) -> None:
        """Load the model and open the session, before the worker's first task.

        Raises
        ------
        ClusterError
            If the worker has another version of the package, or not the same model.
        """
        try:
            require_same_version(worker.address, __version__, self.version)
            n_workers = len({*await worker.scheduler.ncores(), worker.address})
            self.equipment = await asyncio.to_thread(self._make_equipment, worker, n_workers)
        except Exception as error:
            worker.log_event(self.topic, {"worker": worker.address, "reason": str(error) or type(error).__name__})
            raise

    def _make_equipment(self, worker: Worker, n_workers: int) -> Equipment:
        job, card, storage_options, equipment_type = pickle.loads(self._pickled)
        enhances = has_resources(worker.state.total_resources, self.enhance_resources)
        try:
            threads = worker.state.nthreads if enhances else 0
            slots = SharedSlots(worker, HostLimit.of(job.fetch), n_workers)
            made: Equipment = equipment_type(job, card, storage_options, threads, slots)
            self.sandbox = Sandbox(made, (equipment_type, job, card, storage_options, threads))
            let_pillow_open(job.limits.max_pixels)
            # A worker in the process of the user's own is not to be ended.
            self.is_watched = not worker.address.startswith("inproc://")
        except ModelError as error:
            # The driver has tried it before: this worker differs.
            raise ClusterError(f"worker {worker.address} cannot use the model: {error}") from error
        return made

    async def teardown(self, worker: Worker) -> None:
        """Close the session; of a run that was cancelled while this worker was still loading, there is none yet."""
        if self.sandbox:
            await asyncio.to_thread(self.sandbox.close)
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
    fetched = asyncio.run_coroutine_threadsafe(fetches, get_loop()).result()
    # Here, since the loop has other fetches to go on with.
    return _advance(equipment.identify, fetched)


async def _fetch_together(equipment: Equipment, items: Sequence[Item]) -> list[Carried]:
    return await asyncio.gather(*map(equipment.fetch, items))


def tell_contents(batch: Sequence[Carried]) -> dict[str, str]:
    """Return the SHA-256 of the bytes that were fetched, by the Items' keys, without those of what is over already."""
    return {carried.item.key: carried.source.sha256 for carried in batch if not carried.is_over}


def resize_batch(job_id: str, batch: Sequence[Carried], original_by_key: Mapping[str, str]) -> list[Carried]:
    """Decode and scale the images of a batch, but for those that others are made for, see `Job.deduplicate`."""
    left = [_leave_to(original_by_key.get(carried.item.key, ""), carried) for carried in batch]
    return _compute(job_id, "resize", left)


def enhance_batch(job_id: str, batch: Sequence[Carried]) -> list[Carried]:
    """Run the model on the images of a batch."""
    return _compute(job_id, "enhance", batch)


def store_batch(job_id: str, batch: Sequence[Carried]) -> list[Outcome]:
    """Encode and write the images of a batch; say what became of every Item."""
    return _write(_equipment(job_id), _compute(job_id, "store", batch))


def sandbox_batch(job_id: str, batch: Sequence[Carried], original_by_key: Mapping[str, str]) -> list[Outcome]:
    """Do what the stages after ``fetch`` do, but where an image can do no harm: its batch lost a worker."""
    plugin = _plugin(job_id)
    assert plugin.sandbox is not None
    left = [_leave_to(original_by_key.get(carried.item.key, ""), carried) for carried in batch]
    return _write(_equipment(job_id), _advance(plugin.sandbox.make, left))


def _write(equipment: Equipment, encoded: Sequence[Carried]) -> list[Outcome]:
    if not equipment.puts_together:
        return equipment.write_batch(encoded)
    # The core goes on with other batches, however long the store takes to answer.
    secede()
    return asyncio.run_coroutine_threadsafe(equipment.put_batch(encoded), get_loop()).result()


def pack_shard(job_id: str, pieces: Sequence[Piece]) -> str:
    """Join the pieces of a shard; return its name. It waits for disks and networks, so it leaves its thread."""
    equipment = _equipment(job_id)
    assert isinstance(equipment, ShardEquipment)
    secede()
    return equipment.folder.pack(pieces)


TASKS: Final[Mapping[Stage, Callable[..., Any]]] = {
    "fetch": fetch_batch,
    "resize": resize_batch,
    "enhance": enhance_batch,
    "store": store_batch,
}


def task_key(
    step: Stage | Literal["digest", "pack", "sandbox"], job_id: str, run: str, number: int
) -> tuple[str, str, int]:
    """Name a batch's task so that Dask groups it by stage and by job.

    Dask takes the words up to the first with a digit as the prefix, so an id that begins with a letter gets a 0.
    """
    group = job_id if job_id[0].isdigit() else f"0-{job_id}"
    return (f"{step}-{group}", run, number)


def _advance(step: Callable[[Carried], Carried], batch: Sequence[Carried]) -> list[Carried]:
    return [carried if carried.is_over else step(carried) for carried in batch]


def _compute(job_id: str, stage: Stage, batch: Sequence[Carried]) -> list[Carried]:
    equipment = _equipment(job_id)
    step = dict(equipment.computing_steps)[stage]
    if not _plugin(job_id).is_watched:
        return _advance(step, batch)

    def watched(carried: Carried) -> Carried:
        with _WATCH.step(equipment.timeout_s(stage)):
            return step(carried)

    return _advance(watched, batch)


def _leave_to(original: str, carried: Carried) -> Carried:
    return replace(carried, payload=None, duplicate_of=original) if original and not carried.is_over else carried


def _plugin(job_id: str) -> EquipWorker:
    plugin: EquipWorker = get_worker().plugins[_plugin_name(job_id)]
    return plugin


def _equipment(job_id: str) -> Equipment:
    plugin = _plugin(job_id)
    if plugin.equipment is None:
        # It has joined in mid-run and cannot do the work: others have to, until the driver sends it away.
        raise Reschedule
    return plugin.equipment


def require_same_version(worker: str, its_version: str, our_version: str) -> None:
    """Raise ClusterError if a worker has another version of the package than the driver."""
    if its_version != our_version:
        raise ClusterError(
            f"worker {worker} has image-pipeline {its_version}, this is {our_version}; install the same version there"
        )


def _plugin_name(job_id: str) -> str:
    return f"pipeline-{job_id}"
