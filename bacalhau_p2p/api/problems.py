"""What went wrong, as an HTTP answer."""

from __future__ import annotations

from fastapi import Response
from fastapi.responses import JSONResponse

from bacalhau_p2p.errors import (
    AmbiguousID,
    ApiError,
    BacalhauError,
    ContentNotFound,
    ContentTooLarge,
    DiskFull,
    InvalidCID,
    InvalidContent,
    InvalidJob,
    JobNotFinished,
    NoRoom,
    SettingsError,
    UnknownJob,
)
from bacalhau_p2p.model.api_json import error_to_json

_STATUS: dict[type[BacalhauError], int] = {
    InvalidJob: 400,
    InvalidCID: 400,
    InvalidContent: 422,
    UnknownJob: 404,
    ContentNotFound: 404,
    AmbiguousID: 409,
    JobNotFinished: 409,
    ContentTooLarge: 413,
    DiskFull: 507,
    NoRoom: 507,
    SettingsError: 503,
}


def describe(error: BacalhauError) -> Response:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    if isinstance(error, ApiError) and error.status:
        status = error.status
    return JSONResponse(error_to_json(error), status_code=status)
