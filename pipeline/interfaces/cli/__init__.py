"""The command line: ``pipeline`` and ``python -m pipeline``."""

from __future__ import annotations

import sys

from pipeline.interfaces.cli.app import run_app

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_app(sys.argv[1:]))
