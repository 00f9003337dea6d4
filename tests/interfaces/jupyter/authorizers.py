"""What an operator of Jupyter may write."""

from __future__ import annotations

from typing import Any

from jupyter_server.auth import Authorizer


class NoPipeline(Authorizer):
    """Forbids the pipeline, and nothing else."""

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        return resource != "pipeline"
