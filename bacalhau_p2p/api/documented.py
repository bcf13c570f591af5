"""What the OpenAPI document says of routes that FastAPI cannot know."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import Query


def one_of(*values: str) -> Any:
    """A parameter of the query that has one of these values; the endpoint checks it."""
    return Query(json_schema_extra={"enum": list(values)})


def answers(media_type: str, *others: int) -> dict[int | str, dict[str, Any]]:
    """For `responses`: bytes of this media type, with status 200 or one of the others that are no errors."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    described: dict[int | str, dict[str, Any]] = {200: {"content": content}}
    for status in others:
        described[status] = {"description": HTTPStatus(status).phrase, "content": content}
    return described
