"""Where the tasks run: a scheduler that somebody else runs, or a local cluster for the time of one job."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any, Final

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster
from distributed.deploy import Cluster

from pipeline.errors import ClusterError
from pipeline.runner.quiet import quiet_dask

DASHBOARD_PORT: Final = 8787

# Dask's nanny sets a trim threshold of 64 KiB, with which glibc gives every image buffer back to the kernel when it
# is freed: that costs a third of the throughput. Dask and the operator's environment cannot override it, this can.
WORKER_ENVIRONMENT: Final = {
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(512 * 2**20),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

_LOCAL_CONFIG: Final[dict[str, Any]] = {
    "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
    # A batch whose worker died is run again image by image at once, rather than as a whole three more times.
    "distributed.scheduler.allowed-failures": 0,
    # The stages of a batch stay where its images are.
    "distributed.scheduler.work-stealing": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    # Every 10 ms Dask looks where each worker's threads are, and every 20 ms whether each event loop still runs: on a
    # busy machine that took a tenth of the time from the enhancement.
    "distributed.worker.profile.interval": "200ms",
    "distributed.admin.tick.interval": "500ms",
}


# Its page shows the job on the dashboard. Only a name here: what people see is no business of the run's.
PRELOADED_BY_SCHEDULER: Final = "pipeline.interfaces.dashboard"

_STARTING: Final = threading.Lock()


@contextlib.contextmanager
def open_client(address: str | Cluster | None, workers: int | None = None, timeout_s: float = 5.0) -> Iterator[Client]:
    """Connect to a scheduler, or start a local cluster that ends with the block.

    Parameters
    ----------
    address : str, distributed.deploy.Cluster or None
        Such as ``tcp://10.0.0.1:8786``, or a cluster of any kind; None for a local cluster.
    workers : int, optional
        Processes of the local cluster, each of one thread; one a core if not given.
    timeout_s : float
        Seconds until a scheduler that does not answer is given up.

    Raises
    ------
    ClusterError
        If the scheduler does not answer or has no workers, or the local cluster cannot start.
    """
    if address:
        with _connect(address, timeout_s) as client:
            _require_workers(client, address, timeout_s)
            yield client
        return
    with (
        quiet_dask(),
        _start_local(workers or CPU_COUNT) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def check_scheduler(address: str | Cluster, timeout_s: float = 5.0) -> None:
    """Raise ClusterError unless a scheduler with at least one worker answers at `address`."""
    with open_client(address, timeout_s=timeout_s):
        pass


def count_threads(client: Client) -> int:
    """Return the worker threads of the cluster; 1 for a cluster that is still to get its first worker."""
    threads: int = sum(client.nthreads().values())
    return max(1, threads)


def _connect(address: str | Cluster, timeout_s: float) -> Client:
    try:
        return Client(address, timeout=timeout_s, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        # Dask raises OSError for time-outs too, and ValueError for what is no address.
        raise ClusterError(
            f"no Dask scheduler answers at {address!r} within {timeout_s:g} s; "
            "start one with `dask scheduler`, or leave --cluster out for a local cluster"
        ) from error


def _require_workers(client: Client, address: str | Cluster, timeout_s: float) -> None:
    try:
        client.wait_for_workers(1, timeout=timeout_s)
    except TimeoutError as error:
        raise ClusterError(
            f"the Dask scheduler at {address!r} has no workers; start some with `dask worker {address}`"
        ) from error


def _start_local(workers: int) -> LocalCluster:
    try:
        # Configuration and filters are the whole process's, so they are set no longer than the cluster takes them over.
        with _STARTING, dask.config.set(_local_config()), warnings.catch_warnings(), _interrupts_blocked():
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
    config = _LOCAL_CONFIG | {
        "distributed.scheduler.preload": [*([theirs] if isinstance(theirs, str) else theirs), PRELOADED_BY_SCHEDULER]
    }
    if arguments and not isinstance(arguments[0], str):
        # One list of them for each preload.
        config["distributed.scheduler.preload-argv"] = [*arguments, []]
    return config


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Have the workers that start in this block never see Ctrl-C: in the same terminal, it is the driver's to handle.

    A blocked signal is inherited by threads and processes from their very first moment, which no handler is.
    """
    if sys.platform == "win32":
        yield
        return
    # If it were started with the first worker, it would lift the block.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _free_dashboard_port() -> int:
    # Dask takes a random port if its own is busy, but warns.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DASHBOARD_PORT))
        except OSError:
            return 0
    return DASHBOARD_PORT
