"""What a scheduler knows of the tasks of a job: where they are, stage by stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.domain import STAGES, Progress, Stage
from pipeline.runner.tasks import task_key

# What Dask calls the states in which a task is still known, in the order in which a task passes them.
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "waiting": ("waiting",),
    "queued": ("queued", "no-worker"),
    "processing": ("processing",),
    "memory": ("memory",),
    "erred": ("erred",),
}


@dataclass(frozen=True, slots=True)
class StageTasks:
    """The tasks of one stage of one job.

    Attributes
    ----------
    stage : Stage
    counts : mapping of str to int
        By the names of `COLUMNS`.
    """

    stage: Stage
    counts: Mapping[str, int]


def count_tasks(states_by_group: Mapping[str, Mapping[str, int]], progress: Progress) -> list[StageTasks]:
    """Find the tasks of a job among those of all jobs.

    Parameters
    ----------
    states_by_group : mapping of str to mapping of str to int
        How many tasks of each of Dask's task groups are in which of Dask's states.
    progress : Progress
        Of the job; it names the stages that the job has.

    Returns
    -------
    list of StageTasks
        One a stage, in the order of the stages, also where there are no tasks.
    """
    found = []
    for stage in STAGES:
        if stage not in progress.done_by_stage:
            continue
        group, *_ = task_key(stage, progress.job_id, "", 0)
        states = states_by_group.get(group, {})
        counts = {name: sum(states.get(state, 0) for state in parts) for name, parts in COLUMNS.items()}
        found.append(StageTasks(stage, counts))
    return found


def count_batches(tasks: Iterable[StageTasks]) -> int:
    """Return how many batches are in flight: those whose last task has not ended yet."""
    *_, last = [stage.counts for stage in tasks] or [{}]
    return sum(last.get(name, 0) for name in ("waiting", "queued", "processing"))
