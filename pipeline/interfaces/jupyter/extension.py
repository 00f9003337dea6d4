"""The extension of Jupyter's server. Loading it connects to nothing, starts nothing, and imports nothing heavy."""

from __future__ import annotations

from typing import Final

from jupyter_server.extension.application import ExtensionApp

from pipeline.interfaces.jupyter.handlers import Jobs, OneJob, Socket
from pipeline.interfaces.jupyter.on_demand import DeskOnDemand

# As on the service: the letters of a job's id.
_ID: Final = r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})"


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
