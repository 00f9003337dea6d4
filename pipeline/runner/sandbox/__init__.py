"""A process beside a worker in which an image may crash, hang or eat memory: `parent` runs it, `child` is it."""

from __future__ import annotations

from pipeline.runner.sandbox.parent import Sandbox

__all__ = ["Sandbox"]
