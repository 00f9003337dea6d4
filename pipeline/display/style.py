"""The colours of every interface: one for each stage, the same in bars, charts, reports and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Legible on white and on near-black; neighbours differ in lightness too, for eyes that do not tell red from green.
COLOUR_BY_STAGE: Final[Mapping[str, str]] = {
    "fetch": "#3b82f6",
    "resize": "#eba417",
    "enhance": "#8b5cf6",
    "store": "#22a67a",
}
COLOUR_STORED: Final = COLOUR_BY_STAGE["store"]
COLOUR_FAILED: Final = "#e5484d"
COLOUR_SKIPPED: Final = "#8b95a5"
