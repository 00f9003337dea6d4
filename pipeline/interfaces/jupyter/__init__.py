"""The pipeline in Jupyter: the page of the service in JupyterLab's launcher, and the jobs under Jupyter's own roof.

`launcher` tells jupyter-server-proxy how to start the service and how to reach it; `extension` mounts `handlers`, which
answer ``/pipeline/…`` behind Jupyter's own login, in Jupyter's server; `desk` is where they find jobs, and is opened by
the first request.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Tell Jupyter where the extension is."""
    from pipeline.interfaces.jupyter.extension import PipelineExtension

    return [{"module": "pipeline.interfaces.jupyter.extension", "app": PipelineExtension}]
