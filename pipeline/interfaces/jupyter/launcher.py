"""What jupyter-server-proxy asks for: how the service is started, reached, and shown in the launcher."""

from __future__ import annotations

import os
import secrets
import sys
from importlib import resources
from typing import Any, Final

# Dask's import and an embedded Valkey that has to read its data.
_READY_S: Final = 60.0


def describe_server() -> dict[str, Any]:
    """Describe the service to jupyter-server-proxy, once for each process of Jupyter.

    The service listens on a socket file that only this user can open, and wants a token even there. It is made here,
    goes to the service in its environment, which only this user can read, and is added by the proxy to what Jupyter has
    let in: a browser never has it, and no address, log or command line shows it.
    """
    token = secrets.token_urlsafe(24)
    icon = resources.files("pipeline.interfaces.server").joinpath("page", "icon.svg")
    return {
        # Jupyter may be killed, or shut down without a word to what the proxy started.
        "command": [
            *(sys.executable, "-m", "pipeline", "serve"),
            *("--unix-socket", "{unix_socket}", "--parent", str(os.getpid())),
            # What it logs goes to Jupyter's own log, where each request is one line already.
            *("--log-level", "warning"),
        ],
        "environment": {"PIPELINE_TOKEN": token},
        "request_headers_override": {"Authorization": f"Bearer {token}"},
        "unix_socket": True,
        "timeout": _READY_S,
        # A tab of the browser: the page lets nothing frame it, and other things than JupyterLab live on this origin.
        "new_browser_tab": True,
        # JupyterLab shows icons of proxied servers in this category and in Console only.
        "launcher_entry": {"title": "Image pipeline", "icon_path": str(icon), "category": "Notebook"},
    }
