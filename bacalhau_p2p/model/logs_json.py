"""Pieces of output as JSON of the HTTP API. Imports nothing slow: the command line reads them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from bacalhau_p2p.model.logs import LogPiece, LogStream

if TYPE_CHECKING:
    from bacalhau_p2p.model.base import ExecutionID


def piece_to_json(piece: LogPiece) -> dict[str, Any]:
    """`Text` if the bytes are UTF-8, else `Data` with the bytes in base64."""
    try:
        content = {"Text": piece.data.decode()}
    except UnicodeDecodeError:
        content = {"Data": base64.b64encode(piece.data).decode()}
    return {
        "ExecutionID": piece.execution_id,
        "Stream": piece.stream.name.lower(),
        "Offset": piece.offset,
        **content,
    }


def piece_from_json(value: Mapping[str, Any]) -> LogPiece:
    """The inverse of `piece_to_json`. Raises KeyError, TypeError, ValueError."""
    text = value.get("Text")
    data = text.encode() if isinstance(text, str) else base64.b64decode(value["Data"], validate=True)
    return LogPiece(
        execution_id=cast("ExecutionID", str(value["ExecutionID"])),
        stream=LogStream[value["Stream"].upper()],
        offset=int(value["Offset"]),
        data=data,
    )
