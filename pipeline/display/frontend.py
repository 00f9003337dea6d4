"""What is at the other end of this process: a notebook with somebody in front of it, one without, or neither."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def is_notebook() -> bool:
    """Whether this process is a Jupyter kernel. IPython on a terminal is none: it shows text."""
    return getattr(_shell(), "kernel", None) is not None


def is_attended() -> bool:
    """Whether somebody may press a button: papermill and nbconvert, which run cell after cell, never answer a question.

    They say so with each cell that they send.
    """
    content = _parent().get("content", {})
    return bool(content.get("allow_stdin", True))


def publish(bundle: Mapping[str, Any], display_id: str | None = None, *, is_update: bool = False) -> None:
    """Show what is given by MIME type in the cell that runs, or in place of what was shown under the same id."""
    from IPython.display import display

    display(bundle, raw=True, display_id=display_id, update=is_update)  # type: ignore[no-untyped-call]


def current_cell() -> str:
    """Return what tells one run of a cell from another; empty outside of a kernel."""
    return str(_parent().get("header", {}).get("msg_id", ""))


def _shell() -> Any | None:
    # A process in which IPython was never imported is not run by it.
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _parent() -> dict[str, Any]:
    kernel = getattr(_shell(), "kernel", None)
    return kernel.get_parent("shell") or {} if kernel else {}
