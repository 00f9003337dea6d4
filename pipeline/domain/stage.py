"""The stages of the work, in their order."""

from __future__ import annotations

from typing import Final, Literal

Stage = Literal["fetch", "resize", "enhance", "store"]
STAGES: Final[tuple[Stage, ...]] = ("fetch", "resize", "enhance", "store")
