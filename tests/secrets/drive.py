"""What a user does with collections that have secrets; a process of its own, whose logs are searched.

Called with the name of a part and a JSON object that says where everything is.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from typing import Any

import pandas as pd
from distributed import Client

import pipeline
from pipeline import Recipe
from pipeline.domain import Item
from pipeline.runner.tasks import fetch_batch

RECIPE = Recipe(enhance=None, max_width=64, max_height=64, format="jpeg")
pd.set_option("display.max_colwidth", None, "display.max_columns", None, "display.width", 1000)


def say(*words: object) -> None:
    """Print."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def tell(job: Any) -> None:
    """Print whatever a handle says."""
    say(repr(job), job.wait(), job.failures(), job.outcomes(), job.gallery())
    say(job.report()._repr_html_())


def first(client: Client, world: dict[str, Any]) -> None:
    """Run each kind of collection and output; keep reports; then leave a job running while its pages are looked at."""
    options: Any = {"client": client, "allow_private": True, "retries": 0, "storage_options": world["options"]}
    out = world["out"]
    jobs = [
        pipeline.run(world["urls"], f"{out}/files", RECIPE, job_id="files", **options),
        pipeline.run(world["urls"], f"{out}/shards", RECIPE, job_id="shards", output="webdataset", **options),
        pipeline.run(world["urls"][0], f"{out}/single", RECIPE, job_id="single", **options),
        pipeline.run(
            world["manifest"],
            f"{out}/manifest",
            RECIPE,
            job_id="manifest",
            key_column="name",
            carry_columns=["url"],
            **options,
        ),
        pipeline.run(f"{world['bucket']}/in/", f"{world['bucket']}/out", RECIPE, job_id="s3", **options),
    ]
    for job in jobs:
        tell(job)
        job.report(f"{out}/{job.id}.html")
    # A batch that fails as a whole, which the worker logs with what it was given.
    failing = client.submit(fetch_batch, "no-such-job", [Item("a", world["urls"][0])], pure=False)
    with contextlib.suppress(Exception):
        failing.result()
    with contextlib.suppress(Exception):
        pipeline.run("photos/", f"s3://{world['mark']}:{world['mark']}@bucket/out", RECIPE)
    for collection in (
        world["urls"][1],
        f"s3://key:{world['mark']}@bucket/none/",
        f"xyz://{world['mark']}@h/*?{world['mark']}",
    ):
        try:
            tell(pipeline.run(collection, f"{out}/wrong", RECIPE, **options))
        except pipeline.PipelineError as error:
            say(error)
    slow = pipeline.run(world["slow"], f"{out}/slow", RECIPE, job_id="slow", **options)
    say("look")
    sys.stdin.readline()
    slow.wait()
    say(pipeline.jobs(), [repr(job.job) for job in pipeline.jobs()])


def second(client: Client, world: dict[str, Any]) -> None:
    """Go on with the jobs in another process, which knows nothing but their ids."""
    for job_id in ("files", "shards"):
        job = pipeline.attach(job_id, storage_options=world["options"])
        job.retry_failed(client=client)
        tell(job)
    say(*map(repr, pipeline.jobs()), pipeline.attach("single").job)


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, filename=sys.argv[3])
    found = json.loads(sys.argv[2])
    with Client(found["scheduler"]) as dask:
        {"first": first, "second": second}[sys.argv[1]](dask, found)
