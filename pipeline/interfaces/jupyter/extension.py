"""The extension of Jupyter's server. Loading it connects to nothing, starts nothing, and imports nothing heavy."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from jupyter_server.extension.application import ExtensionApp

from pipeline.interfaces.jupyter.handlers import Jobs, OneJob, Socket
from pipeline.settings import Settings

if TYPE_CHECKING:
    from pipeline.interfaces.jupyter.desk import JobDesk

# As on the service: the letters of a job's id.
_ID: Final = r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})"


class DeskOnDemand:
    """The desk that all handlers share, opened when the first of them needs it; after an error, by the next."""

    def __init__(self) -> None:
        self._opening = asyncio.Lock()
        self._desk: JobDesk | None = None

    async def get(self) -> JobDesk:
        """Return the desk.

        Raises
        ------
        PipelineError
            If it cannot be opened.
        """
        from pipeline.interfaces.jupyter.desk import JobDesk

        async with self._opening:
            if self._desk is None:
                self._desk = await JobDesk.open(Settings.from_environ())
            return self._desk

    async def aclose(self) -> None:
        """Close the desk, if it was opened."""
        async with self._opening:
            if self._desk is not None:
                desk, self._desk = self._desk, None
                await desk.aclose()


class PipelineExtension(ExtensionApp):
    """Mounts the handlers; closes the desk when Jupyter's server stops."""

    name = "pipeline"

    def initialize_handlers(self) -> None:
        """Say what is answered by what."""
        self._desks = DeskOnDemand()
        shared = {"desks": self._desks}
        self.handlers.extend(
            [
                (r"/pipeline/jobs", Jobs, shared),
                (rf"/pipeline/jobs/{_ID}", OneJob, shared),
                (r"/pipeline/ws", Socket, shared),
            ]
        )

    async def stop_extension(self) -> None:
        """Let go of Redis."""
        await self._desks.aclose()
