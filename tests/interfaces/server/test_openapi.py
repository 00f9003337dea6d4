"""The service's description: valid, and true."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import pipeline
from pipeline.interfaces.server.app import _ROUTES
from pipeline.interfaces.server.openapi import describe_service
from pipeline.interfaces.server.options import Limits

# Without a queue worker, /readyz answers 503, as it should.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def test_the_description_is_valid_openapi():
    OpenAPIV31SpecValidator(describe_service(Limits())).validate()


def test_every_route_is_described_and_nothing_else():
    described = {re.sub(r"{\w+}", "X", path) for path in describe_service(Limits())["paths"]}
    routes = {re.sub(r"\\|\?$", "", path.replace("?", "")) for path, _, _ in _ROUTES} - {"/ws"}
    served = {re.sub(r"\([^/]*\)", "X", path).replace("\\", "") for path in routes}
    assert served | {"/job/X"} == described
    assert describe_service(Limits())["info"]["version"] == pipeline.__version__


@pytest.mark.slow
def test_answers_are_as_described_whatever_is_asked(idle_service):
    """Generated from the description: what fits it, and what does not."""
    schema = schemathesis.openapi.from_url(f"{idle_service.base_url}/openapi.json")
    headers = {"Authorization": f"Bearer {idle_service.token}"}
    tried = Counter()

    def ask(case):
        tried[case.operation.path] += 1
        checks = CHECKS[1:] if case.operation.path == "/readyz" else CHECKS
        case.call_and_validate(headers=headers, checks=checks, timeout=20)

    for found in schema.get_all_operations():
        examples = settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        examples(given(case=found.ok().as_strategy())(ask))()
    assert len(tried) == len(describe_service(Limits())["paths"])
    assert tried.total() > 200
