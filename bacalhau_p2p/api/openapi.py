"""The OpenAPI document: what FastAPI makes of the routes, with the bodies and the token that it overlooks."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bacalhau_p2p.api.access import is_open_path
from bacalhau_p2p.api.bodies.content import PinLine
from bacalhau_p2p.api.bodies.errors import ErrorBody
from bacalhau_p2p.api.bodies.jobs import LogPieceBody, Rerun, Stop, Submission
from bacalhau_p2p.api.bodies.nodes import Credentials, NodeChange

JSON = dict[str, Any]

ERRORS: dict[int | str, JSON] = {
    "4XX": {"model": ErrorBody, "description": "The request is wrong."},
    "5XX": {"model": ErrorBody, "description": "The node is at fault, or can not do this now."},
    422: {"model": ErrorBody, "description": "A parameter is malformed."},
}
TAGS = [
    {"name": "jobs", "description": "Submit jobs, follow them, and get their results."},
    {"name": "nodes", "description": "This node and those that it knows."},
    {"name": "authentication", "description": "How clients get the token."},
    {"name": "content", "description": "Files and folders by CID."},
]
_SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "The node's `api_token`. A node without one ignores it, and serves this machine only.",
    }
}
_BODIES: tuple[type[BaseModel], ...] = (
    Credentials,
    LogPieceBody,
    NodeChange,
    PinLine,
    Rerun,
    Stop,
    Submission,
)
"""Bodies that endpoints read or write by themselves."""


def takes(model: type[BaseModel]) -> JSON:
    """For `openapi_extra`: one of the bodies that endpoints read by themselves."""
    content = {"application/json": {"schema": _reference(model)}}
    required = any(field.is_required() for field in model.model_fields.values())
    return {"requestBody": {"required": required, "content": content}}


def lines_of(model: type[BaseModel]) -> dict[int | str, JSON]:
    """For `responses`: lines of JSON, each one of the bodies that endpoints write by themselves."""
    return {200: {"content": {"application/x-ndjson": {"schema": _reference(model)}}}}


def _reference(model: type[BaseModel]) -> JSON:
    assert model in _BODIES
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def openapi(app: FastAPI) -> JSON:
    """The document of all routes of `app`."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = FastAPI.openapi(app)
    document["tags"] = TAGS
    components = document.setdefault("components", {})
    components["securitySchemes"] = _SCHEMES
    for path, methods in document["paths"].items():
        for operation in methods.values():
            operation["security"] = [] if is_open_path(path) else [{"token": []}, {}]
    _, schemas = models_json_schema(
        [(body, "validation") for body in _BODIES], ref_template="#/components/schemas/{model}"
    )
    components["schemas"] = dict(sorted({**components["schemas"], **schemas.get("$defs", {})}.items()))
    return document
