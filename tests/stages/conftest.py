"""Fixtures of the stages' tests."""

import warnings

import pytest


@pytest.fixture(autouse=True)
def pillow_warnings_ignored():
    """As `pipeline.stages.codec` does for the process: pytest puts a filter of its own over it for each test."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
