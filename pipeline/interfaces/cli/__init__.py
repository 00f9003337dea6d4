"""The command line: ``pipeline`` and ``python -m pipeline``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Final

from pipeline.interfaces.cli import exits

__all__ = ["main"]

# What cron and systemd send is Ctrl-C by another name.
_INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None, name: str | None = None) -> None:
    """Run a command line, that of this process if none is given, and exit with its code."""
    for number in _INTERRUPTS:
        signal.signal(number, _interrupt)
    try:
        # Takes half a second, in which Ctrl-C is to be as quiet as later.
        from pipeline.interfaces.cli.app import run_app

        code = run_app(sys.argv[1:] if arguments is None else arguments, name)
    except KeyboardInterrupt:
        code = exits.INTERRUPTED
    sys.exit(code)


def _interrupt(*_: object) -> None:
    """Raise KeyboardInterrupt, once: the end that it leads to takes seconds, and a second one would spoil it."""
    for number in _INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
