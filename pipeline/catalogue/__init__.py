"""The enhancement models: what there is, and how to load one."""

from __future__ import annotations

from pipeline.catalogue.cards import ModelCard, find_model, list_models, on_this_machine
from pipeline.catalogue.loading import EnhancementModel, inspect_model, load_model

__all__ = [
    "EnhancementModel",
    "ModelCard",
    "find_model",
    "inspect_model",
    "list_models",
    "load_model",
    "on_this_machine",
]
