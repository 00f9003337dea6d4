"""The chains of tasks on the cluster, one for each batch: submitted here, and told here when they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from distributed import Client, Future, KilledWorker

from pipeline.domain import Job, Outcome, Stage
from pipeline.errors import ClusterError, WorkerLostError
from pipeline.runner.cluster import SCHEDULER_GONE, gather_results
from pipeline.runner.core import Batch
from pipeline.runner.events import Step, TaskEnded
from pipeline.runner.tasks import TASKS, sandbox_batch, task_key, tell_contents

# What is begun is finished first: results show early, and few decoded images wait. (Dask would take tasks that were
# submitted within a tenth of a second in the order in which they become ready, stage by stage.) A fetch leaves its
# thread at once, so it goes before all computing: that is what keeps the fetches ahead.
PRIORITY: Final[Mapping[Step, int]] = {"fetch": 10, "digest": 10, "resize": 0, "enhance": 1, "store": 2, "sandbox": 2}


@dataclass(frozen=True, slots=True)
class Loss:
    """A batch that ended without Outcomes: in which stage, and what ended it."""

    number: int
    stage: Stage
    error: BaseException


@dataclass(slots=True)
class Heard:
    """What tasks have come to.

    Attributes
    ----------
    left : list of (int, str)
        Batches and the stages that they have left.
    contents : dict of int to dict of str to str
        Of batches that are to be looked at for duplicates: the SHA-256 of what was fetched, by the Items' keys.
    outcomes : dict of int to sequence of Outcome
        Of batches that have ended.
    losses : list of Loss
    """

    left: list[tuple[int, Stage]] = field(default_factory=list)
    contents: dict[int, dict[str, str]] = field(default_factory=dict)
    outcomes: dict[int, Sequence[Outcome]] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)


@dataclass(slots=True)
class _Chain:
    """A batch, and its tasks that have not been heard of."""

    batch: Batch
    futures: dict[Step, Future] = field(default_factory=dict)


class Chains:
    """The tasks of one run.

    Parameters
    ----------
    client : distributed.Client
    job : Job
    run_id : str
        Tells the tasks of this run from those of an earlier one that the scheduler may still know.
    enhance_resources : mapping of str to float
        What Dask calls resources of workers: those that enhancing takes.
    tell : callable
        Called from any thread when a task has ended.
    """

    def __init__(
        self,
        client: Client,
        job: Job,
        run_id: str,
        enhance_resources: Mapping[str, float],
        tell: Callable[[TaskEnded], None],
    ) -> None:
        self._client = client
        self._job = job
        self._run_id = run_id
        self._enhance_resources = enhance_resources
        self._tell = tell
        self._chains: dict[int, _Chain] = {}

    def submit(self, batch: Batch) -> None:
        """Submit the tasks of a batch; if duplicates are to be found first, only those up to where they are."""
        self._chains[batch.number] = _Chain(batch)
        fetched = self._submit(batch.number, "fetch", TASKS["fetch"], self._job.id, batch.items)
        if self._job.deduplicate:
            self._submit(batch.number, "digest", tell_contents, fetched)
        else:
            self._submit_rest(batch.number, fetched, {})

    def go_on(self, number: int, original_by_key: Mapping[str, str]) -> None:
        """Submit the other tasks of a batch, which are to leave out the duplicates of certain images."""
        if number in self._chains:
            self._submit_rest(number, self._chains[number].futures.pop("fetch"), original_by_key)

    def hear(self, events: Sequence[TaskEnded]) -> Heard:
        """Find out what tasks that have ended have come to."""
        heard = Heard()
        wanted: dict[tuple[int, Step], Future] = {}
        for event in events:
            number, step, future = event.batch_number, event.step, event.future
            if number not in self._chains:
                continue
            if step == "store" or step == "digest" or step == "sandbox":
                if future.status == "finished":
                    wanted[number, step] = future
                else:
                    heard.losses.append(self._lose(number))
            elif future.status == "finished":
                heard.left.append((number, step))
                # Dask keeps the result as long as a later task needs it; we need it no more.
                if step != "fetch" or not self._job.deduplicate:
                    del self._chains[number].futures[step]
        # Even of nothing, a gathering waits for the loop's next turn.
        result_by_task = gather_results(self._client, wanted) if wanted else {}
        for number, step in wanted:
            if (number, step) not in result_by_task:
                heard.losses.append(self._lose(number))
            elif step == "digest":
                del self._chains[number].futures["digest"]
                heard.contents[number] = result_by_task[number, step]
            else:
                del self._chains[number]
                heard.outcomes[number] = result_by_task[number, step]
        return heard

    def drop(self) -> None:
        """Give up what is in flight."""
        self._chains.clear()

    def _submit_rest(self, number: int, fetched: Future, original_by_key: Mapping[str, str]) -> None:
        if self._chains[number].batch.is_suspect:
            self._submit(number, "sandbox", sandbox_batch, self._job.id, fetched, original_by_key)
            return
        upstream = fetched
        for stage in self._job.recipe.stages[1:]:
            extra = (original_by_key,) if stage == "resize" else ()
            upstream = self._submit(number, stage, TASKS[stage], self._job.id, upstream, *extra)

    def _submit(self, number: int, step: Step, task: Callable[..., Any], *args: Any) -> Future:
        future = self._chains[number].futures[step] = self._client.submit(
            task,
            *args,
            key=task_key(step, self._job.id, self._run_id, number),
            priority=PRIORITY[step],
            resources=dict(self._enhance_resources) if step in {"enhance", "sandbox"} else None,
            pure=False,
        )
        future.add_done_callback(lambda done: self._hear_end(number, step, done))
        return future

    def _hear_end(self, number: int, step: Step, future: Future) -> None:
        # What was given up ends too: nobody would take it out of the queue, and a worker would keep its result.
        if number in self._chains:
            self._tell(TaskEnded(number, step, future))

    def _lose(self, number: int) -> Loss:
        futures = self._chains.pop(number).futures
        if self._client.status != "running":
            raise ClusterError(SCHEDULER_GONE)
        # Of a chain whose worker died, the stage that it died of and all later ones have failed.
        step = next((step for step, future in futures.items() if future.status == "error"), next(iter(futures)))
        stage: Stage = "fetch" if step == "digest" else "resize" if step == "sandbox" else step
        error = futures[step].exception() if futures[step].status == "error" else None
        if error is None:
            error = WorkerLostError("the cluster gave its tasks up")
        if isinstance(error, KilledWorker):
            error = WorkerLostError(f"a worker process died while it was in {stage}")
        return Loss(number, stage, error)
