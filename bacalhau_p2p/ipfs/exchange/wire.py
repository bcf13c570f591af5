"""Requests and answers of `/bacalhau/car/1.0.0`: a varint length, then one CBOR map.

`docs/content.md` specifies them. Messages from peers are decoded strictly; unknown fields are ignored, so
that a later version can add some.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import trio
from cbor2 import dumps
from trio.abc import ReceiveStream

from bacalhau_p2p.encoding import framing
from bacalhau_p2p.encoding.cbor import strict_loads
from bacalhau_p2p.errors import InvalidCID, RemoteProtocolError
from bacalhau_p2p.ipfs.format.cid import CID

PROTOCOL = "/bacalhau/car/1.0.0"

MAX_MESSAGE = 64 * 1024
"""Bytes of one request or answer."""

MAX_WANTED = 1000
"""CIDs in one request."""

_MAX_DEPTH = 8


HOLDS_NOTHING, HOLDS_ROOT, HOLDS_ALL = 0, 1, 2
"""What a peer holds of a DAG: not even the root; at least the root; every block."""


class Operation(StrEnum):
    HAVE = "have"
    """Whether the peer has the complete DAG below a CID, or below each of the wanted parts of it."""
    GET = "get"
    """Send the blocks below a CID, or below the wanted parts of it."""


class Status(StrEnum):
    OK = "ok"
    MISSING = "missing"
    BUSY = "busy"
    """The peer serves as many of our requests as it allows; ask again later."""
    REFUSED = "refused"
    """The peer does not support the operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An operation on the DAG below `cid`. `wanted` narrows it to the DAGs below these blocks; `flat`, in a
    get, to these blocks themselves."""

    operation: Operation
    cid: CID
    wanted: tuple[CID, ...] = ()
    flat: bool = False

    def encode(self) -> bytes:
        body: dict[str, Any] = {"op": self.operation.value, "cid": self.cid.binary}
        if self.wanted:
            body["want"] = [cid.binary for cid in self.wanted]
        if self.flat:
            body["flat"] = True
        return _frame(body)

    @classmethod
    def decode(cls, payload: bytes) -> Request | None:
        """None for an unknown operation. Raises RemoteProtocolError."""
        body = _loads(payload)
        operation, wanted = body.get("op"), body.get("want", [])
        if not isinstance(wanted, list) or len(wanted) > MAX_WANTED or not isinstance(operation, str):
            raise RemoteProtocolError("malformed content request: wrong type or length of a field")
        cid, parts = _cid(body.get("cid")), tuple(_cid(part) for part in wanted)
        try:
            return cls(operation=Operation(operation), cid=cid, wanted=parts, flat=body.get("flat") is True)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`holds`, in the answer to a `have`, has one byte for each wanted part; it may be absent."""

    status: Status
    reason: str = ""
    holds: bytes = b""

    def encode(self) -> bytes:
        body: dict[str, Any] = {"status": self.status.value}
        if self.reason:
            body["reason"] = self.reason
        if self.holds:
            body["holds"] = self.holds
        return _frame(body)

    @classmethod
    def decode(cls, payload: bytes) -> Answer:
        """Raises RemoteProtocolError."""
        body = _loads(payload)
        reason, holds = body.get("reason", ""), body.get("holds", b"")
        try:
            return cls(
                status=Status(str(body.get("status"))),
                reason=reason if isinstance(reason, str) else "",
                holds=holds if isinstance(holds, bytes) and len(holds) <= MAX_WANTED else b"",
            )
        except ValueError:
            raise RemoteProtocolError("malformed content answer: unknown status") from None


async def read_message(stream: ReceiveStream, buffer: bytearray, idle_timeout: float) -> bytes:
    """The next message of a stream; bytes after it stay in `buffer`.

    Raises RemoteProtocolError, trio.TooSlowError after `idle_timeout` seconds without a byte.
    """
    while (payload := take_message(buffer)) is None:
        with trio.fail_after(idle_timeout):
            data = await stream.receive_some(MAX_MESSAGE)
        if not data:
            raise RemoteProtocolError("the stream ended inside a content message")
        buffer += data
    return payload


def take_message(buffer: bytearray) -> bytes | None:
    """Remove the first message from `buffer`; None while it is incomplete. Raises RemoteProtocolError."""
    return framing.take_frame(buffer, MAX_MESSAGE, "content")


def _frame(body: dict[str, Any]) -> bytes:
    return framing.encode_frame(dumps(body))


def _cid(value: object) -> CID:
    if not isinstance(value, bytes):
        raise RemoteProtocolError("malformed content request: a CID is missing")
    try:
        return CID(value)
    except InvalidCID as error:
        raise RemoteProtocolError(f"malformed content request: {error}") from None


def _loads(payload: bytes) -> dict[str, Any]:
    body = strict_loads(payload, max_depth=_MAX_DEPTH)
    if not isinstance(body, dict):
        raise RemoteProtocolError("malformed content message: not a CBOR map")
    return body
