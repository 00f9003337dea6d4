"""Fixtures that several folders of tests share; each lives in the module that its part is named after."""

pytest_plugins = [
    "tests.fixtures.browser",
    "tests.fixtures.cluster",
    "tests.fixtures.jupyter",
    "tests.fixtures.photographs",
    "tests.fixtures.s3",
    "tests.fixtures.service",
    "tests.fixtures.valkey",
    "tests.fixtures.web",
    # After what it imports: pytest rewrites the asserts of a module before its first import.
    "tests.fixtures.network",
]
