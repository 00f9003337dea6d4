"""The description of the service, OpenAPI 3.1. Pure."""

from __future__ import annotations

from typing import Any, Final

import pipeline
from pipeline.domain import FITS, FORMATS, MAX_SIDE
from pipeline.interfaces.server.options import Limits

_ABOUT: Final = (
    "Fetch, resize, enhance and store collections of images. Follow jobs over the WebSocket /ws: "
    'send {"type": "subscribe", "jobId": …}, read {"jobId", "status"}.'
)

_JOB_ID_PATTERN: Final = "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

_JOB_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The job's id.",
    "schema": {"type": "string", "pattern": _JOB_ID_PATTERN},
}
_KEY: Final = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "The image's key; it may hold slashes.",
    "schema": {"type": "string", "minLength": 1},
}
_LIMIT: Final = {
    "name": "limit",
    "in": "query",
    "description": "How many at most.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 1000},
}


def describe_service(limits: Limits) -> dict[str, Any]:
    """Return the OpenAPI document of a server with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "image-pipeline",
            "version": pipeline.__version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "./"}],
        "security": [{"bearer": []}, {"query": []}],
        "paths": _paths(),
        "components": {"securitySchemes": _SECURITY, "schemas": _schemas(limits), "responses": _responses()},
    }


def _paths() -> dict[str, Any]:
    status = _answer("The job's state.", "Job")
    one_job = {
        "parameters": [_JOB_ID],
        "get": _operation("readJob", "How a job stands.", {"200": status}, "404"),
        "delete": _operation("cancelJob", "Cancel a job.", {"202": _answer("It is asked to end.", "Accepted")}, "404"),
    }
    # The same under its older name.
    alias = {
        "parameters": [_JOB_ID],
        "get": _operation("readJobAlias", "How a job stands.", {"200": status}, "404"),
        "delete": _operation("cancelJobAlias", "Cancel a job.", {"202": _answer("It ends.", "Accepted")}, "404"),
    }
    return {
        "/jobs": {
            "get": _operation("listJobs", "The newest jobs.", {"200": _answer("Newest first.", "Jobs")}, "422")
            | {"parameters": [_LIMIT]},
            "post": _operation(
                "submitJob", "Submit a job.", {"202": _submitted()}, "400", "403", "409", "413", "415", "422", "429"
            )
            | {"requestBody": _SUBMISSION_BODY},
        },
        "/jobs/{id}": one_job,
        "/job/{id}": alias,
        "/jobs/{id}/items": {
            "parameters": [_JOB_ID],
            "get": _operation("listItems", "What became of images.", {"200": _answer("A page.", "Items")}, "404", "422")
            | {
                "parameters": [
                    _LIMIT,
                    {"name": "status", "in": "query", "schema": {"enum": ["stored", "skipped", "failed"]}},
                    {
                        "name": "after",
                        "in": "query",
                        "description": "The `next` of the page before.",
                        "schema": {"type": "string"},
                    },
                ]
            },
        },
        "/jobs/{id}/retry": {
            "parameters": [_JOB_ID],
            "post": _operation(
                "retryJob",
                "Run what failed, and what is left, again.",
                {"202": _answer("It waits.", "Accepted")},
                "403",
                "404",
                "409",
                "429",
            ),
        },
        "/results/{id}/{key}": {"parameters": [_JOB_ID, _KEY], "get": _image("readResult", "A stored image.")},
        "/sources/{id}/{key}": {"parameters": [_JOB_ID, _KEY], "get": _image("readSource", "An uploaded image.")},
        "/models": {"get": _operation("listModels", "The enhancement models.", {"200": _answer("All.", "Models")})},
        "/metrics": {
            "get": _operation(
                "readMetrics",
                "For Prometheus.",
                {"200": {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
            )
        },
        "/healthz": {"get": _open("isAlive", "Whether the process lives.", {"200": _answer("It does.", "Health")})},
        "/readyz": {
            "get": _open(
                "isReady",
                "Whether Redis and Dask are reachable.",
                {"200": _answer("They are.", "Health"), "503": {"$ref": "#/components/responses/Error"}},
            )
        },
        "/openapi.json": {
            "get": _open(
                "describe",
                "This document.",
                {"200": {"description": "It.", "content": {"application/json": {"schema": {"type": "object"}}}}},
            )
        },
        "/": {
            "get": _open(
                "page",
                "The page.",
                {"200": {"description": "HTML.", "content": {"text/html": {"schema": {"type": "string"}}}}},
            )
        },
    }


def _operation(name: str, summary: str, answers: dict[str, Any], *errors: str) -> dict[str, Any]:
    refusals = {status: {"$ref": "#/components/responses/Error"} for status in ("401", "403", "503", *errors)}
    return {"operationId": name, "summary": summary, "responses": answers | dict(sorted(refusals.items()))}


def _open(name: str, summary: str, answers: dict[str, Any]) -> dict[str, Any]:
    return {"operationId": name, "summary": summary, "security": [], "responses": answers}


def _image(name: str, summary: str) -> dict[str, Any]:
    kinds = ("image/jpeg", "image/png", "image/webp", "image/avif", "image/gif", "image/bmp", "image/tiff")
    content = {kind: {"schema": {"type": "string", "contentEncoding": "binary"}} for kind in kinds}
    return _operation(name, summary, {"200": {"description": "The image.", "content": content}}, "404")


def _answer(description: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _submitted() -> dict[str, Any]:
    location = {"description": "Where its state is.", "schema": {"type": "string"}}
    return _answer("The job waits.", "Accepted") | {"headers": {"Location": location}}


def _responses() -> dict[str, Any]:
    retry = {"description": "Seconds, where waiting helps.", "schema": {"type": "string"}}
    return {"Error": _answer("What, on what, why.", "Error") | {"headers": {"Retry-After": retry}}}


def _schemas(limits: Limits) -> dict[str, Any]:
    web_url = {"type": "string", "pattern": "^[hH][tT][tT][pP][sS]?://[a-zA-Z0-9]", "maxLength": 4096}
    counts = ("total", "stored", "skipped", "failed", "duplicates", "fetched", "resized", "enhanced", "written")
    failed = ("failedFetch", "failedResize", "failedEnhance", "failedStore", "bytesIn", "bytesOut", "version")
    measures = ("progress", "seconds", "imagesPerSecond", "etaSeconds")
    by_stage = ("secondsFetch", "secondsResize", "secondsEnhance", "secondsStore")
    texts = ("id", "collection", "destination", "error", "createdAt", "startedAt", "completedAt", "resultUrl")
    job: dict[str, Any] = {
        name: {"type": "integer", "minimum": 0} for name in (*counts, *failed, "width", "height", "channels")
    }
    job |= {name: {"type": "number", "minimum": 0} for name in (*measures, *by_stage)}
    job |= {name: {"type": "string"} for name in texts}
    job |= {
        "status": {"enum": ["queued", "processing", "stalled", "completed", "failed", "cancelled"]},
        "errors": {"type": "object", "additionalProperties": {"type": "integer"}},
        "cancelRequested": {"type": "integer"},
    }
    options = {
        "maxWidth": {"type": "integer", "minimum": 1, "maximum": MAX_SIDE},
        "maxHeight": {"type": "integer", "minimum": 1, "maximum": MAX_SIDE},
        "fit": {"enum": list(FITS)},
        "quality": {"type": "integer", "minimum": 1, "maximum": 100},
        "format": {"enum": list(FORMATS)},
        "enhance": {"type": ["string", "null"], "description": "A model's name, or none."},
        "strength": {"type": "number", "minimum": 0, "maximum": 1},
        "enlarge": {"type": "boolean"},
        "background": {"type": "string", "pattern": "^#[0-9a-fA-F]{6}$"},
        "keepCopyright": {"type": "boolean"},
    }
    shared = {
        "options": {"$ref": "#/components/schemas/Options"},
        "jobId": {"type": "string", "pattern": _JOB_ID_PATTERN},
    }
    urls = {"type": "array", "items": web_url, "minItems": 1, "maxItems": limits.urls_per_job}
    place = {"type": "string", "minLength": 1, "maxLength": 4096}
    item: dict[str, Any] = {
        name: {"type": "string"}
        for name in ("key", "url", "sha256", "stage", "error", "message", "remedy", "resultUrl", "sourceUrl", "output")
    }
    item |= {name: {"type": "integer"} for name in ("width", "height", "bytesIn", "bytesOut", "attempts")}
    item |= {
        "urlSha256": {"type": "string", "description": "Of the whole URL, if `url` shows but a part of it."},
        "status": {"enum": ["stored", "skipped", "failed"]},
        "seconds": {"type": "object", "additionalProperties": {"type": "number"}},
        "finishedAt": {"type": "number", "description": "Seconds since the epoch."},
    }
    model = {name: {"type": "string"} for name in ("name", "description", "figures")} | {"scale": {"type": "integer"}}
    return {
        "Options": {"type": "object", "properties": options, "additionalProperties": False},
        "Submission": {
            "oneOf": [
                _closed({"imageUrl": web_url} | shared, "imageUrl"),
                _closed({"imageUrls": urls} | shared, "imageUrls"),
                _closed({"collection": place, "destination": place} | shared, "collection"),
            ]
        },
        "Upload": _closed(
            {
                "files": {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}},
                "options": {"$ref": "#/components/schemas/Options"},
            },
            "files",
        ),
        "Accepted": _closed({"jobId": {"type": "string"}, "status": job["status"]}, "jobId", "status"),
        "Job": {"type": "object", "properties": job, "required": ["id", "status", "version", "progress"]},
        "Jobs": _closed({"jobs": {"type": "array", "items": {"$ref": "#/components/schemas/Job"}}}, "jobs"),
        "Item": {"type": "object", "properties": item, "required": ["key", "url", "status"]},
        "Items": _closed(
            {
                "items": {"type": "array", "items": {"$ref": "#/components/schemas/Item"}},
                "next": {"type": ["string", "null"]},
            },
            "items",
            "next",
        ),
        "Models": _closed(
            {
                "models": {"type": "array", "items": {"type": "object", "properties": model}},
                "default": {"type": ["string", "null"]},
            },
            "models",
            "default",
        ),
        "Health": {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]},
        "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
    }


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_SUBMISSION_BODY: Final = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/Submission"}},
        "multipart/form-data": {
            "schema": {"$ref": "#/components/schemas/Upload"},
            "encoding": {"options": {"contentType": "application/json"}},
        },
    },
}

_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "query": {"type": "apiKey", "in": "query", "name": "token"},
}
