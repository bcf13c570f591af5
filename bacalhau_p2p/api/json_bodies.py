"""JSON in requests and responses."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request, Response
from pydantic_core import to_json

from bacalhau_p2p.errors import ApiError

JSON = dict[str, Any]

MAX_SMALL_BODY = 64 * 1024
"""Bytes of a request that says little."""


def json_response(value: JSON) -> Response:
    """A response that FastAPI neither validates nor copies."""
    return Response(to_json(value), media_type="application/json")


async def json_object(request: Request, *, most: int) -> JSON:
    """The JSON object in the body of a request; empty without a body.

    Raises ApiError for anything else, and for more than `most` bytes.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise ApiError(f"request body too large: more than {most} bytes", status=413)
    if not body:
        return {}
    try:
        value = json.loads(body)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # it could be neither stored nor sent
        raise ApiError("request body has text with half of a surrogate pair", status=400) from error
    except (ValueError, RecursionError) as error:
        raise ApiError(f"request body is not JSON: {error}", status=400) from error
    if not isinstance(value, dict):
        raise ApiError("request body must be a JSON object", status=400)
    return value


def value_of(body: JSON, key: str) -> Any:
    """The value of a key in any letter case; None if it is missing."""
    return next((value for name, value in body.items() if name.lower() == key.lower()), None)
