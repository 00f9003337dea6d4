"""The page on the Dask dashboard: what a scheduler is to preload.

``dask scheduler --preload pipeline.interfaces.dashboard``; a local cluster does it by itself. Dask makes its pages of
`applications` after it has imported its preloads and before it calls their `dask_setup`, so importing this registers
the page: once for the menu, and once for JupyterLab's Dask extension, which lists what begins with ``individual``.
"""

from __future__ import annotations

from distributed import Scheduler
from distributed.dashboard.scheduler import applications, template_variables

from pipeline.interfaces.dashboard.page import board_of, page, panel

__all__ = ["dask_setup"]

applications["/pipeline"] = page
applications["/individual-pipeline"] = panel


def dask_setup(scheduler: Scheduler) -> None:
    """Have the scheduler hear what drivers announce, and put the page into its menu, beside Dask's first one."""
    board_of(scheduler)
    # Dask keeps these for each scheduler and hands the same list to every page.
    pages = template_variables(scheduler)["pages"]
    if "pipeline" not in pages:
        pages.insert(1, "pipeline")
