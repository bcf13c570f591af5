"""Errors as JSON of the HTTP API. Separate from `api_json` so that the CLI does not import pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bacalhau_p2p import errors
from bacalhau_p2p.errors import (
    AmbiguousID,
    ApiError,
    BacalhauError,
    ContentError,
    ContentInUse,
    ContentNotFound,
    ContentTooLarge,
    DiskFull,
    Fault,
    InvalidCID,
    InvalidContent,
    InvalidJob,
    JobEnded,
    JobNotFinished,
    LogsUnavailable,
    NoRoom,
    SettingsError,
    UnknownJob,
    UnknownNode,
)

_STATUS: dict[type[BacalhauError], int] = {
    InvalidJob: 400,
    InvalidCID: 400,
    InvalidContent: 422,
    UnknownJob: 404,
    UnknownNode: 404,
    ContentNotFound: 404,
    LogsUnavailable: 404,
    AmbiguousID: 409,
    ContentInUse: 409,
    JobEnded: 409,
    JobNotFinished: 409,
    ContentTooLarge: 413,
    DiskFull: 507,
    NoRoom: 507,
    SettingsError: 503,
}
_CODES = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    408: "TimeOut",
    409: "ResourceInUse",
    422: "ValidationError",
    429: "TooManyRequests",
    501: "NotImplemented",
    503: "ServiceUnavailable",
    507: "ResourceExhausted",
}
"""Bacalhau's codes of errors by status. Any other status below 500 is a BadRequest."""

_COMPONENTS: dict[type[BacalhauError], str] = {
    UnknownJob: "JobStore",
    AmbiguousID: "JobStore",
    JobEnded: "JobStore",
    JobNotFinished: "JobStore",
    InvalidJob: "Orchestrator",
    UnknownNode: "NodesManager",
    LogsUnavailable: "Logs",
    ContentError: "Content",
}
_HINTS: dict[type[BacalhauError], str] = {
    UnknownJob: "`job list` shows the jobs of this node",
    UnknownNode: "`node list` shows the nodes that this one knows",
}


def hint_of(error: BacalhauError) -> str:
    """What to do next about an error; empty if its message says it."""
    return _of_kind(_HINTS, error) or ""


def status_of(error: BacalhauError) -> int:
    """The HTTP status of an error: an ApiError's own, else the one of its class, else 500."""
    if isinstance(error, ApiError) and error.status:
        return error.status
    return _of_kind(_STATUS, error) or 500


def headers_of(error: BacalhauError) -> dict[str, str]:
    """HTTP headers that belong to an error."""
    after = error.retry_after if isinstance(error, ApiError) else 0
    return {"Retry-After": str(after)} if after else {}


def error_to_json(error: BacalhauError) -> dict[str, Any]:
    """Bacalhau's `{"Status", "Message", "Code", "Component", "Hint", "Details", "RequestID"}`.

    Beside them, `Kind` is the class name of the error and `Error` repeats the message; an invalid job has
    `Faults`, each with its `Path` and `Problem`.
    """
    status, message = status_of(error), str(error)
    faults = error.faults if isinstance(error, InvalidJob) else ()
    body = {
        "Status": status,
        "Message": message,
        "RequestID": "",
        "Code": _CODES.get(status, "InternalError" if status >= 500 else "BadRequest"),
        "Component": _of_kind(_COMPONENTS, error) or "API",
        "Hint": hint_of(error),
        "Details": {fault.path: fault.problem for fault in faults if fault.path},
        "Error": message,
        "Kind": type(error).__name__,
    }
    if isinstance(error, InvalidJob):
        body["Faults"] = [{"Path": fault.path, "Problem": fault.problem} for fault in faults]
    return body


def error_from_json(value: object, *, status: int) -> BacalhauError:
    """The inverse of `error_to_json`; ApiError for any other answer of a server."""
    body = value if isinstance(value, Mapping) else {}
    message = body.get("Message")
    if not isinstance(message, str) or not message:
        return ApiError(f"the node answered with HTTP status {status}", status=status)
    kind, faults = body.get("Kind"), body.get("Faults")
    if kind == "InvalidJob":
        return InvalidJob(_faults(faults) or [Fault("", message)])
    known = getattr(errors, kind, None) if isinstance(kind, str) else None
    if isinstance(known, type) and issubclass(known, BacalhauError) and not issubclass(known, ApiError):
        return known(message)
    return ApiError(message, status=status)


def _of_kind(table: Mapping[type[BacalhauError], Any], error: BacalhauError) -> Any:
    return next((value for kind, value in table.items() if isinstance(error, kind)), None)


def _faults(value: object) -> list[Fault]:
    items = value if isinstance(value, list) else []
    return [
        Fault(str(item.get("Path", "")), str(item.get("Problem", "")))
        for item in items
        if isinstance(item, Mapping)
    ]
