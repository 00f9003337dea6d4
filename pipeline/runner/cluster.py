"""Where the tasks run: a scheduler that somebody else runs, or a cluster for the time of one job."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, TypeAlias

import dask
from dask.system import CPU_COUNT
from distributed import Client, Future, LocalCluster
from distributed.deploy import Cluster

from pipeline.errors import ClusterError
from pipeline.runner.cluster_settings import ANSWER_PATIENCE_S, ClusterSpec, read_cluster
from pipeline.runner.named_cluster import connect_client, find_class, open_named
from pipeline.runner.quiet import QuietCodecs, quiet_dask
from pipeline.runner.starting import CLUSTER_CONFIG, starting

log = logging.getLogger(__name__)

# What a user may say of his cluster.
ClusterPlace: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Cluster

DASHBOARD_PORT: Final = 8787

SCHEDULER_GONE: Final = "the Dask scheduler is gone; what was stored is in the ledger: the job can be resumed"

# How long a scheduler in mid-run may take to answer; a job whose driver says nothing for longer is stalled.
SILENCE_PATIENCE_S: Final = 25.0

# Of that, what each of two questions for the results of tasks may take, the rest being for whether the scheduler lives.
# Two: if a worker dies at the moment of the first, the scheduler waits to connect to it; at the second it knows.
_GATHER_SHARE: Final = 0.4
_GATHER_TRIES: Final = 2

# Its page shows the job on the dashboard. Only a name here: what people see is no business of the run's.
PRELOADED_BY_SCHEDULER: Final = "pipeline.interfaces.dashboard"


@contextlib.contextmanager
def open_client(
    place: ClusterPlace | None, workers: int | None = None, timeout_s: float = ANSWER_PATIENCE_S
) -> Iterator[Client]:
    """Connect to a scheduler, or start a cluster that ends with the block.

    Parameters
    ----------
    place : str, path, mapping, distributed.deploy.Cluster or None
        Such as ``tcp://10.0.0.1:8786``, or what else `read_cluster` reads, or an open cluster of any kind; None for a
        local cluster.
    workers : int, optional
        Processes of the local cluster, each of one thread; one a core if not given.
    timeout_s : float
        Seconds until a scheduler that does not answer is given up.

    Raises
    ------
    ClusterError
        If the scheduler does not answer or has no workers, or the cluster cannot start.
    SettingsError
        If a file that `place` names cannot be read, or says something that is not allowed.
    """
    if not place:
        opened = _open_local(workers or CPU_COUNT)
    elif isinstance(place, Cluster):
        opened = _open_running(place, ClusterSpec(repr(place)), timeout_s)
    else:
        spec = read_cluster(place)
        opened = open_named(spec) if spec.class_name else _open_running(spec.address, spec, timeout_s)
    with opened as client:
        yield client


def check_scheduler(place: ClusterPlace, timeout_s: float = ANSWER_PATIENCE_S) -> None:
    """Raise ClusterError unless a scheduler with at least one worker answers at `place`, or its class can be used."""
    if not isinstance(place, Cluster) and (spec := read_cluster(place)).class_name:
        # It is started when the run begins: some take minutes, and cost money.
        find_class(spec)
        return
    with open_client(place, timeout_s=timeout_s):
        pass


class Crew:
    """The workers of a run's cluster, who come and go, and whom a local cluster is to have as many as it began with.

    Dask gives a worker of a local cluster up for good if, a while after it died, its successor is not there just then:
    of workers that die again and again none would be left.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._is_known_empty = False

    def count_threads(self) -> int:
        """Return the worker threads of the cluster, at least 1: it may be still to get its first worker.

        Raises
        ------
        ClusterError
            If the scheduler does not answer.
        """
        ncores = _ask_for_workers(self._client, SILENCE_PATIENCE_S)
        cluster = self._client.cluster
        if isinstance(cluster, LocalCluster) and len(cluster.workers) < len(cluster.worker_spec):
            cluster.scale(len(cluster.worker_spec))
        elif not ncores and not self._is_known_empty:
            log.warning("the Dask cluster has no workers; the run waits for some")
        self._is_known_empty = not ncores
        return max(1, sum(ncores.values()))


def gather_results(client: Client, futures: Mapping[Any, Future]) -> dict[Any, Any]:
    """Return the results of tasks that have ended, without those that are gone, as with a worker that has died since.

    Dask's own `gather` would wait until the tasks of these have been run again, and for ever for a scheduler that
    hangs.

    Raises
    ------
    ClusterError
        If the scheduler does not answer.
    """
    # A reference to a future would have its result kept for as long as there is one.
    keys = frozenset(future.key for future in futures.values())
    for _ in range(_GATHER_TRIES):
        with _answer_expected(), contextlib.suppress(TimeoutError):
            found = client.sync(_gather, client, keys, callback_timeout=_GATHER_SHARE * SILENCE_PATIENCE_S)
            return {name: found[future.key] for name, future in futures.items() if future.key in found}
    # Either the scheduler hangs, or a worker that has some of the results: they are made again.
    _ask_for_workers(client, (1 - _GATHER_SHARE * _GATHER_TRIES) * SILENCE_PATIENCE_S)
    log.warning("the results of %d tasks cannot be had from their workers; they are run again", len(futures))
    return {}


async def _gather(client: Client, keys: Collection[Any]) -> dict[Any, Any]:
    """Return what there is of the results of these tasks, by their keys."""
    wanted = set(keys)
    while wanted:
        answer = await client.scheduler.gather(keys=list(wanted))
        if answer["status"] == "OK":
            return dict(answer["data"])
        # It names what is gone, and gives nothing of the rest.
        wanted -= set(answer["keys"])
    return {}


def _ask_for_workers(client: Client, patience_s: float) -> dict[str, int]:
    """Return the threads of each worker."""
    with _answer_expected():
        ncores: dict[str, int] = client.sync(client.scheduler.ncores, callback_timeout=patience_s)
    return ncores


@contextlib.contextmanager
def _answer_expected() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise ClusterError(
            f"the Dask scheduler has not answered for {SILENCE_PATIENCE_S:g} seconds; see whether it runs and can be "
            "reached, then resume the job: what was stored is in the ledger"
        ) from error
    except OSError as error:
        raise ClusterError(SCHEDULER_GONE) from error


@contextlib.contextmanager
def _open_local(workers: int) -> Iterator[Client]:
    with quiet_dask(), _start_local(workers) as cluster, Client(cluster, set_as_default=False) as client:
        client.register_plugin(QuietCodecs())
        yield client


@contextlib.contextmanager
def _open_running(target: str | Cluster, spec: ClusterSpec, timeout_s: float) -> Iterator[Client]:
    with connect_client(target, spec, timeout_s) as client:
        try:
            client.wait_for_workers(1, timeout=timeout_s)
        except TimeoutError as error:
            raise ClusterError(
                f"the Dask scheduler at {target!r} has no workers; start some with `dask worker {target}`"
            ) from error
        yield client


def _start_local(workers: int) -> LocalCluster:
    try:
        # Filters are the whole process's too.
        with starting(_local_config(), are_workers_ours=True), warnings.catch_warnings():
            # Two processes that start in the same moment find the same port free; the second gets another.
            warnings.filterwarnings("ignore", r"\s*Port \d+ is already in use", UserWarning)
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=f"127.0.0.1:{_free_dashboard_port()}",
                silence_logs=logging.CRITICAL,
            )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise ClusterError(f"cannot start a local Dask cluster of {workers} workers: {error}") from error


def _local_config() -> dict[str, Any]:
    """Return what is set while a local cluster starts; the preloads of the user's own configuration stay."""
    theirs, arguments = (dask.config.get(f"distributed.scheduler.{name}") for name in ("preload", "preload-argv"))
    config = CLUSTER_CONFIG | {
        "distributed.scheduler.preload": [*([theirs] if isinstance(theirs, str) else theirs), PRELOADED_BY_SCHEDULER]
    }
    if arguments and not isinstance(arguments[0], str):
        # One list of them for each preload.
        config["distributed.scheduler.preload-argv"] = [*arguments, []]
    return config


def _free_dashboard_port() -> int:
    # Dask takes a random port if its own is busy, but warns.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DASHBOARD_PORT))
        except OSError:
            return 0
    return DASHBOARD_PORT
