"""A folder over HTTP on loopback, from a process of its own: the demo's source and the benchmark's.

``/NAME`` answers with a file of the folder; ``/answers/404/NAME`` with that status; ``/answers/silence/NAME`` never.
"""

from __future__ import annotations

import argparse
import asyncio
import mimetypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from pipeline.errors import SourceError


@contextmanager
def serve_folder(folder: Path, latency_s: float = 0.0) -> Iterator[str]:
    """Serve the files of a folder at an address on loopback, as long as the with-block lasts.

    The server is another process, so that it takes nothing from this one's interpreter; it also ends when this process
    dies, however it dies.

    Parameters
    ----------
    folder : Path
    latency_s : float
        Seconds before each answer, as a distant server takes.

    Yields
    ------
    str
        The base URL, without a slash at its end.

    Raises
    ------
    SourceError
        If there is no such folder, or the server does not start.
    """
    if not folder.is_dir():
        raise SourceError(f"cannot serve {str(folder)!r}: there is no such folder")
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(folder), "--latency-ms", str(latency_s * 1000)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # The child imports the package from where this process has it.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        # Ctrl-C is for the driver, which still reads from here while it ends its batches.
        start_new_session=True,
        text=True,
    )
    with process:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        if not base_url:
            raise SourceError(f"cannot serve {str(folder)!r}: the server ended with code {process.wait()}")
        try:
            yield base_url
        finally:
            process.terminate()


class FileHandler(RequestHandler):
    """Answers with a file, read whole."""

    def initialize(self, folder: Path, latency_s: float) -> None:
        """Take what the routes give."""
        self.folder = folder
        self.latency_s = latency_s

    def compute_etag(self) -> None:
        """No hash of every body: nobody asks twice."""

    async def get(self, name: str) -> None:
        """Answer with the file, or with 404."""
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder):
            raise HTTPError(403)
        try:
            body = path.read_bytes()
        except OSError as error:
            raise HTTPError(404) from error
        self.set_header("Content-Type", mimetypes.guess_type(name)[0] or "application/octet-stream")
        await self.finish(body)


class StatusHandler(RequestHandler):
    """Answers with the status that the path names."""

    def get(self, status: str) -> None:
        """Answer with it."""
        raise HTTPError(int(status))


class SilenceHandler(RequestHandler):
    """Keeps the client waiting until it has had enough."""

    async def get(self) -> None:
        """Wait for the client to go."""
        self.has_gone = asyncio.Event()
        await self.has_gone.wait()

    def on_connection_close(self) -> None:
        """Note that the client has gone."""
        self.has_gone.set()


def make_application(folder: Path, latency_s: float = 0.0) -> Application:
    """Return the routes of the server."""
    settings: dict[str, Any] = {"log_function": lambda handler: None}
    return Application(
        [
            (r"/answers/([45]\d\d)/.*", StatusHandler),
            (r"/answers/silence/.*", SilenceHandler),
            (r"/(.+)", FileHandler, {"folder": folder.resolve(), "latency_s": latency_s}),
        ],
        **settings,
    )


async def serve_until_eof(folder: Path, latency_s: float) -> None:
    """Serve until standard input ends, which is also what happens when the process that started this one dies."""
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(make_application(folder, latency_s))
    server.add_sockets(sockets)
    sys.stdout.write(f"http://127.0.0.1:{sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="Serve a folder on loopback until standard input ends.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    arguments = parser.parse_args()
    asyncio.run(serve_until_eof(arguments.folder, arguments.latency_ms / 1000))


if __name__ == "__main__":
    main()
