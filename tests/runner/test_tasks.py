"""What runs on the workers."""

from __future__ import annotations

import pytest
from dask.utils import key_split
from distributed import Client
from distributed.utils import key_split_group

from pipeline.domain import STAGES, Job
from pipeline.launch import new_job_id
from pipeline.runner.tasks import EquipWorker, task_key


@pytest.mark.parametrize("job_id", [new_job_id(), "nightly", "nightly-batch", "2026.11_a", "7"])
@pytest.mark.parametrize("stage", STAGES)
def test_dask_groups_tasks_by_stage_and_by_job(stage: str, job_id: str) -> None:
    key = task_key(stage, job_id, "f00d", 3)
    assert key_split(key) == stage
    group = key_split_group(key)
    assert group.startswith(stage)
    assert group.endswith(job_id)
    assert group == key_split_group(task_key(stage, job_id, "f00d", 4))


def test_keys_of_two_runs_of_a_job_differ() -> None:
    """The scheduler may still know those of the first."""
    assert task_key("fetch", "1", "a", 0) != task_key("fetch", "1", "b", 0)


def test_a_worker_is_equipped_once_for_all_images_of_a_run(client: Client) -> None:
    """The model is loaded before the first task, by each worker once."""
    plugin = EquipWorker(Job("1", "photos/", "out/"))
    client.register_plugin(plugin)
    try:
        first = client.run(lambda dask_worker: id(dask_worker.plugins["pipeline-1"].equipment))
        again = client.run(lambda dask_worker: id(dask_worker.plugins["pipeline-1"].equipment))
        assert first == again
        assert len(first) == 2
    finally:
        client.unregister_worker_plugin("pipeline-1")
    assert not any(client.run(lambda dask_worker: "pipeline-1" in dask_worker.plugins).values())
