"""The enhancement models: what there is, and how to load one by its name."""

from __future__ import annotations

from pipeline.catalogue.cards import EnhancementModel, ModelCard, find_model, load_model, models

__all__ = ["EnhancementModel", "ModelCard", "find_model", "load_model", "models"]
