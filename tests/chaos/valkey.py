"""A Valkey of a test's own that is killed, held up and made to refuse; it is run as the embedded one is."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from redis import Redis

from pipeline.state.embedded import is_answering, socket_path
from pipeline.state.keeper import _server_command
from tests.interfaces.commands import wait_until


class Valkey:
    """A server in a folder, with an append-only file.

    Attributes
    ----------
    url : str
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.url = f"unix://{quote(str(socket_path(self.folder)))}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it has read its data."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(_server_command(self.folder), cwd=self.folder, stdout=log, stderr=log)
        wait_until(lambda: is_answering(self.folder), "an answer of Valkey")

    def kill(self) -> None:
        """End it as the kernel does that is out of memory."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def hold(self) -> None:
        """Have it answer nothing more, though its connections stay open."""
        self._send(signal.SIGSTOP)

    def let_go(self) -> None:
        """Have it go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> Valkey:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @contextmanager
    def refusing(self, how: str) -> Iterator[None]:
        """Refuse to write during the block, for one of the reasons of which there are many."""
        # Of its own: the connection stays when others are cut.
        with Redis.from_url(self.url) as redis:
            match how:
                case "out of memory":
                    redis.config_set("maxmemory", "1")
                case "read-only":
                    redis.replicaof("127.0.0.1", "1")
                case "disk full":
                    # A folder where the dump is to be: it cannot be written, so nothing is.
                    (self.folder / "dump.rdb").mkdir()
                    redis.config_set("save", "3600 1")
                    redis.bgsave()
                    wait_until(lambda: redis.info()["rdb_last_bgsave_status"] == "err", "a dump that fails")
                case "wrong password":
                    redis.config_set("requirepass", "another")
                    redis.client_kill_filter(skipme=True, _type="normal")
                    redis.client_kill_filter(skipme=True, _type="pubsub")
            try:
                yield
            finally:
                with suppress(FileNotFoundError):
                    (self.folder / "dump.rdb").rmdir()
                for name, value in {"maxmemory": "0", "save": "", "requirepass": ""}.items():
                    redis.config_set(name, value)
                redis.replicaof("NO", "ONE")
