"""Errors as JSON of the HTTP API. Separate from `api_json` so that the CLI does not import pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bacalhau_p2p import errors
from bacalhau_p2p.errors import ApiError, BacalhauError, Fault, InvalidJob


def error_to_json(error: BacalhauError) -> dict[str, Any]:
    """`{"Error", "Code"}`, and `Faults` for an invalid job. `Code` is the class name of the error."""
    body: dict[str, Any] = {"Error": str(error), "Code": type(error).__name__}
    if isinstance(error, InvalidJob):
        body["Faults"] = [{"Path": fault.path, "Problem": fault.problem} for fault in error.faults]
    return body


def error_from_json(value: object, *, status: int) -> BacalhauError:
    """The inverse of `error_to_json`; ApiError for any other answer of a server."""
    body = value if isinstance(value, Mapping) else {}
    message = body.get("Error")
    if not isinstance(message, str) or not message:
        return ApiError(f"the node answered with HTTP status {status}", status=status)
    code, faults = body.get("Code"), body.get("Faults")
    if code == "InvalidJob":
        return InvalidJob(_faults(faults) or [Fault("", message)])
    kind = getattr(errors, code, None) if isinstance(code, str) else None
    if isinstance(kind, type) and issubclass(kind, BacalhauError) and not issubclass(kind, ApiError):
        return kind(message)
    return ApiError(message, status=status)


def _faults(value: object) -> list[Fault]:
    items = value if isinstance(value, list) else []
    return [
        Fault(str(item.get("Path", "")), str(item.get("Problem", "")))
        for item in items
        if isinstance(item, Mapping)
    ]
