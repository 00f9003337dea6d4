"""Which process drives a job, and whether one that drove it before has ended."""

from __future__ import annotations

import functools
import os
import socket
import uuid
from pathlib import Path


def driver_name() -> str:
    """Return what people call this process: ``HOST:PID``."""
    return f"{socket.gethostname()}:{os.getpid()}"


def new_token() -> str:
    """Return what tells a lease from any other, and lets other processes of this machine see whether its driver lives.

    Its parts are those that `has_ended` reads: ``SCOPE/PID/RANDOM``.
    """
    return f"{pid_scope()}/{os.getpid()}/{uuid.uuid4().hex}"


def has_ended(token: str) -> bool:
    """Tell whether the process that made a token has ended, as far as this one can see: elsewhere it may live."""
    scope, _, rest = token.partition("/")
    if scope != pid_scope():
        return False
    try:
        os.kill(int(rest.partition("/")[0]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@functools.cache
def pid_scope() -> str:
    """Return a name for where this process' id means something: one start of a kernel, one of its pid namespaces.

    Containers may share their host's name, and each has its own process 1. Without ``/proc`` it is the host's name.
    """
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot_id}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return socket.gethostname()
