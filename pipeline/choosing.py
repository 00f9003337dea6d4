"""What a run needs, found and tried before it begins: its model, its cluster, the place of Dask's report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.catalogue import ModelCard, find_model, inspect_model
from pipeline.domain import Recipe
from pipeline.errors import ClusterError
from pipeline.settings import Settings
from pipeline.storage import require_place_of_report

if TYPE_CHECKING:
    # These take a second to import, so they are imported on use.
    from distributed import Client

    from pipeline.runner.cluster import ClusterPlace

ConnectCluster = Callable[[], AbstractContextManager["Client"]]


def choose_model(recipe: Recipe, settings: Settings) -> ModelCard | None:
    """Find the Recipe's model, and make sure that it can be used; None if it asks for none.

    Raises
    ------
    ModelError
        If there is no model of that name, or it cannot be used.
    """
    return inspect_model(find_model(recipe.enhance, settings.models)) if recipe.enhance else None


def with_dask_report(connect_cluster: ConnectCluster, path: Path) -> ConnectCluster:
    """Have Dask's own performance report of the run written to an HTML file.

    Raises
    ------
    DestinationError
        If it cannot be written there: better now than after a night's run.
    """
    from pipeline.runner.dask_report import open_reported

    require_place_of_report(path)
    return lambda: open_reported(connect_cluster, path)


def choose_cluster(
    settings: Settings,
    client: Client | None = None,
    cluster: ClusterPlace | None = None,
    workers: int | None = None,
) -> ConnectCluster:
    """Decide where the tasks run, and make sure that a scheduler which somebody else runs answers.

    Raises
    ------
    ClusterError, SettingsError
        If it does not, or if what names the cluster means nothing.
    """
    from pipeline.runner.cluster import check_scheduler, open_client

    if client is not None:
        if cluster is not None or workers is not None:
            raise ClusterError("client is given with cluster or workers; allowed is one of client, cluster and workers")
        return lambda: nullcontext(client)
    place = cluster or settings.cluster
    if place is not None:
        check_scheduler(place)
    return lambda: open_client(place, workers)
