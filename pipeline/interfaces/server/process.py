"""The processes of a service: the server, and the queue worker beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog

from pipeline.interfaces.server.app import running_server
from pipeline.interfaces.server.options import ServerOptions
from pipeline.settings import Settings
from pipeline.state import JobStore
from pipeline.work import LEAVE_PATIENCE_S, QueueWorker

log = structlog.get_logger(__name__)

_RESTART_S: Final = 1.0
_LONGEST_RESTART_S: Final = 30.0
_PARENT_S: Final = 1.0


async def serve(
    options: ServerOptions,
    settings: Settings,
    store: JobStore,
    worker_arguments: list[str] | None,
    on_ready: Callable[[int], None],
    parent: int | None = None,
) -> None:
    """Serve until a signal asks to end: no new jobs then, and those that run are left to be resumed.

    Parameters
    ----------
    options : ServerOptions
    settings : Settings
    store : JobStore
    worker_arguments : list of str or None
        Of ``pipeline work``, which runs as a process of its own, so that neither takes the other's time; None for none.
    on_ready : callable
        Told the port.
    parent : int or None
        The process that started this one; when it has gone, the server ends too.
    """
    is_ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, is_ending.set)
    watching = asyncio.create_task(_watch_parent(parent, is_ending)) if parent else None
    async with running_server(options, settings, store) as port, _worker_beside(worker_arguments):
        on_ready(port)
        await is_ending.wait()
        log.info("server_ends")
    if watching:
        watching.cancel()


async def _watch_parent(parent: int, is_ending: asyncio.Event) -> None:
    """Ask the server to end when its parent has gone, which may have been killed, or forget its children."""
    # No event tells of it.
    while os.getppid() == parent:  # noqa: ASYNC110
        await asyncio.sleep(_PARENT_S)
    is_ending.set()


@contextlib.asynccontextmanager
async def _worker_beside(arguments: list[str] | None) -> AsyncIterator[None]:
    """Keep a queue worker running until the end of the block, and start another one if it dies."""
    if arguments is None:
        yield
        return
    keeping = asyncio.create_task(_keep_worker(arguments))
    try:
        yield
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping


async def _keep_worker(arguments: list[str]) -> None:
    wait_s = _RESTART_S
    while True:
        # It ends when its standard input does, however this process ends.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipeline", "work", "--until-input-ends", *arguments),
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            start_new_session=True,
        )
        started_at_s = asyncio.get_running_loop().time()
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
        if asyncio.get_running_loop().time() - started_at_s > _LONGEST_RESTART_S:
            wait_s = _RESTART_S
        log.error("queue_worker_ended", code=code, restart_s=wait_s)
        await asyncio.sleep(wait_s)
        wait_s = min(_LONGEST_RESTART_S, 2 * wait_s)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(LEAVE_PATIENCE_S + 10):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def work(worker: QueueWorker, *, until_input_ends: bool) -> None:
    """Run a queue worker in this process until a signal, or the end of the input, asks it to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # In a thread of its own: the signal may come while this one holds what `stop` waits for.
        signal.signal(number, lambda *_: threading.Thread(target=worker.stop).start())
    if until_input_ends:
        threading.Thread(target=_stop_at_end_of_input, args=[worker], name="pipeline-input", daemon=True).start()
    worker.run()


def _stop_at_end_of_input(worker: QueueWorker) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    worker.stop()
