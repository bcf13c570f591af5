"""The OpenAPI document: what FastAPI makes of the routes, with the bodies and the token that it overlooks."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bacalhau_p2p.api.access import is_open_path
from bacalhau_p2p.api.bodies.errors import ErrorBody
from bacalhau_p2p.api.bodies.jobs import Rerun, Stop, Submission
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
_REQUESTS: tuple[type[BaseModel], ...] = (Credentials, NodeChange, Rerun, Stop, Submission)
"""Bodies that endpoints read by themselves."""


def takes(model: type[BaseModel]) -> JSON:
    """For `openapi_extra`: one of the bodies that endpoints read by themselves."""
    assert model in _REQUESTS
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {"application/json": {"schema": reference}}
    required = any(field.is_required() for field in model.model_fields.values())
    return {"requestBody": {"required": required, "content": content}}


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
        [(body, "validation") for body in _REQUESTS], ref_template="#/components/schemas/{model}"
    )
    components["schemas"] = dict(sorted({**components["schemas"], **schemas.get("$defs", {})}.items()))
    return document
