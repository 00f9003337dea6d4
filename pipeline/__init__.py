"""Fetch, resize, enhance and store whole collections of images, with progress that can be watched.

>>> import pipeline
>>> job = pipeline.run("photos/", "out/", pipeline.Recipe(max_width=1024))  # doctest: +SKIP
>>> job.wait()  # doctest: +SKIP

Nothing heavy is imported before it is used: what this module does not define itself is loaded on its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from pipeline.domain import Failure, FetchPolicy, Item, Job, Outcome, Progress, Recipe, Result
from pipeline.errors import PipelineError
from pipeline.version import __version__

if TYPE_CHECKING:
    from pipeline.catalogue import ModelCard
    from pipeline.job import JobHandle
    from pipeline.launch import attach, jobs, models, run
    from pipeline.sample import Plan, Preview, plan, preview

__all__ = [
    "Failure",
    "FetchPolicy",
    "Item",
    "Job",
    "JobHandle",
    "ModelCard",
    "Outcome",
    "PipelineError",
    "Plan",
    "Preview",
    "Progress",
    "Recipe",
    "Result",
    "__version__",
    "attach",
    "jobs",
    "models",
    "plan",
    "preview",
    "run",
]

_HOME_BY_NAME: Final = {
    "JobHandle": "pipeline.job",
    "ModelCard": "pipeline.catalogue",
    **dict.fromkeys(("attach", "jobs", "models", "run"), "pipeline.launch"),
    **dict.fromkeys(("Plan", "Preview", "plan", "preview"), "pipeline.sample"),
}


def __getattr__(name: str) -> object:
    if home := _HOME_BY_NAME.get(name):
        return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
