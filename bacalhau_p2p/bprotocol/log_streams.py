"""The protocol `/bacalhau/logs/1.0.0`: a requester reads what an execution writes. See `docs/bprotocol.md`.

One stream a question. The requester sends one frame, and the compute node answers with frames until the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cbor2
from trio.abc import ReceiveStream

from bacalhau_p2p.encoding.cbor import strict_loads
from bacalhau_p2p.encoding.framing import encode_frame, take_frame
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.logs import LogPiece, LogStream, Offsets

PROTOCOL = "/bacalhau/logs/1.0.0"
MAX_REQUEST = 1024
"""Bytes of a question."""
MAX_PIECE = 16 * 1024
"""Bytes of output in one frame. Small, so that a slow reader gets something within the time for one."""
MAX_ANSWER = MAX_PIECE + 1024
"""Bytes of a frame of the answer."""
MAX_TAIL = 100_000
"""Lines from the end that may be asked for."""
MAX_OFFSET = 2**60
MAX_ERROR = 500
"""Characters of a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRequest:
    """A question."""

    execution_id: ExecutionID
    follow: bool = False
    """Answer until the execution has ended."""
    tail: int | None = None
    """Begin with so many lines of each stream; None: at its beginning."""
    offsets: Offsets = (0, 0)
    """Begin there, if that is later."""


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The last frame of an answer. `error` is empty if there was nothing more to send."""

    error: str = ""


def encode_request(request: LogRequest) -> bytes:
    value = {
        "execution": request.execution_id,
        "follow": request.follow,
        "stdout": request.offsets[0],
        "stderr": request.offsets[1],
        **({} if request.tail is None else {"tail": min(request.tail, MAX_TAIL)}),
    }
    return encode_frame(cbor2.dumps(value))


def decode_request(frame: bytes) -> LogRequest:
    """Raises RemoteProtocolError."""
    value = _map(frame)
    return LogRequest(
        execution_id=ExecutionID(_field(value, "execution", str)),
        follow=_field(value, "follow", bool, False),
        tail=min(_number(value, "tail"), MAX_TAIL) if value.get("tail") is not None else None,
        offsets=(_number(value, "stdout"), _number(value, "stderr")),
    )


def encode_piece(stream: LogStream, offset: int, data: bytes) -> bytes:
    return encode_frame(cbor2.dumps({"stream": int(stream), "offset": offset, "data": data}))


def encode_end(error: str = "") -> bytes:
    return encode_frame(cbor2.dumps({"end": error[:MAX_ERROR]}))


def decode_answer(frame: bytes, execution_id: ExecutionID) -> LogPiece | LogEnd:
    """Raises RemoteProtocolError."""
    value = _map(frame)
    if "end" in value:
        return LogEnd(_field(value, "end", str)[:MAX_ERROR])
    stream = _number(value, "stream")
    if stream not in (LogStream.STDOUT, LogStream.STDERR):
        raise RemoteProtocolError(f"a log has no stream {stream}")
    data = _field(value, "data", bytes)
    if len(data) > MAX_PIECE:
        raise RemoteProtocolError(f"a piece of a log has {len(data)} bytes; the limit is {MAX_PIECE}")
    return LogPiece(execution_id, LogStream(stream), _number(value, "offset"), data)


class FrameReader:
    """Reads the frames of a stream."""

    def __init__(self, stream: ReceiveStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        """The next frame; None at the end. Cancelled: nothing is lost.

        Raises RemoteProtocolError, and what the stream raises.
        """
        while (frame := take_frame(self._buffer, self._limit, "log")) is None:
            received = await self._stream.receive_some(self._limit)
            if not received:
                return None
            self._buffer += received
        return frame


def _map(frame: bytes) -> dict[str, Any]:
    value = strict_loads(frame, max_depth=1)
    if not isinstance(value, dict):
        raise RemoteProtocolError("a frame of a log is not a map")
    return value


def _field(value: dict[str, Any], name: str, kind: type[Any], default: Any = None) -> Any:
    found = value.get(name, default)
    if not isinstance(found, kind):
        raise RemoteProtocolError(f"{name} of a log is not {kind.__name__}")
    return found


def _number(value: dict[str, Any], name: str) -> int:
    found: int = _field(value, name, int, 0)
    if isinstance(found, bool) or not 0 <= found <= MAX_OFFSET:
        raise RemoteProtocolError(f"{name} of a log is out of range")
    return found
