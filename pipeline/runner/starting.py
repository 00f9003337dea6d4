"""What holds while a cluster is started from this process: Dask's configuration, and that workers never see Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import resource_tracker
from typing import Any, Final

import dask

# Dask's nanny sets a trim threshold of 64 KiB, with which glibc gives every image buffer back to the kernel when it
# is freed: that costs a third of the throughput. Dask and the operator's environment cannot override it, this can.
WORKER_ENVIRONMENT: Final = {
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(512 * 2**20),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

CLUSTER_CONFIG: Final[dict[str, Any]] = {
    "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
    # The stages of a batch stay where its images are.
    "distributed.scheduler.work-stealing": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    # Every 10 ms Dask looks where each worker's threads are, and every 20 ms whether each event loop still runs: on a
    # busy machine that took a tenth of the time from the enhancement.
    "distributed.worker.profile.interval": "200ms",
    "distributed.admin.tick.interval": "500ms",
}

_STARTING: Final = threading.Lock()


@contextlib.contextmanager
def starting(config: Mapping[str, Any], *, are_workers_ours: bool) -> Iterator[None]:
    """Set Dask's configuration for the block, and keep Ctrl-C from the processes that start in it.

    Both are the whole process's, so they hold no longer than a cluster takes them over, for one cluster at a time.

    Parameters
    ----------
    config : mapping
    are_workers_ours : bool
        Whether the workers are children of this process.
    """
    if are_workers_ours:
        # Each nanny copies its own into this process's environment, for good, and believes what it finds there before
        # the configuration: one that another cluster has started, or that starts later, would have the last word.
        os.environ.update(WORKER_ENVIRONMENT)
    with _STARTING, dask.config.set(config), _interrupts_blocked():
        yield


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
