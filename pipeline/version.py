"""The package's version, in a place that every part of it may import: workers and driver compare theirs."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
