"""The desk, opened by the first who asks: until then, Jupyter runs without Redis and what it needs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pipeline.settings import Settings

if TYPE_CHECKING:
    from pipeline.interfaces.jupyter.desk import JobDesk


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
