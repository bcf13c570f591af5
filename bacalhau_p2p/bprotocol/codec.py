"""Messages to bytes and back: plain CBOR maps, decoded as strictly as CBOR can be.

A direct frame holds one envelope, a broadcast an array of them, so that announcements which wait
together travel as one. Anything malformed is a RemoteProtocolError; an envelope of a kind that we
do not know decodes to None, because later versions may add kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, NewType

from cbor2 import dumps
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bacalhau_p2p.bprotocol.messages import KINDS, Message
from bacalhau_p2p.encoding.cbor import strict_loads
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import PeerID, UnixSeconds

VERSION = 1
MAX_DEPTH = 24
"""Nested maps and arrays; a job with parameters needs about 10."""
MAX_BROADCAST_ENVELOPES = 1_000
MESSAGE_ID_BYTES = 16
MAX_RIDING = 1_000
"""Acknowledgements that ride on one envelope at most."""

MessageID = NewType("MessageID", bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A message on its way. `to` is None in a broadcast. `sent` is the sender's clock, for logs only.
    `acks` are acknowledgements that ride along, as an `Ack` of their own would say."""

    id: MessageID
    message: Message
    to: PeerID | None = None
    sent: UnixSeconds = 0.0
    acks: tuple[MessageID, ...] = ()


_WireID = Annotated[bytes, Field(min_length=MESSAGE_ID_BYTES, max_length=MESSAGE_ID_BYTES)]


class _WireEnvelope(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    v: int
    id: _WireID
    kind: Annotated[str, Field(max_length=64)]
    to: Annotated[str, Field(max_length=128)] | None = None
    job: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    execution: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    sent: float = 0.0
    body: dict[str, Any]
    acks: Annotated[list[_WireID], Field(max_length=MAX_RIDING)] = []


def encode_frame(envelope: Envelope) -> bytes:
    """One direct frame."""
    return dumps(_to_wire(envelope))


def encode_broadcast(envelopes: Sequence[Envelope]) -> bytes:
    """One broadcast of up to MAX_BROADCAST_ENVELOPES messages."""
    return dumps([_to_wire(envelope) for envelope in envelopes])


def with_acks(frame: bytes, acks: Sequence[MessageID]) -> bytes:
    """A frame of `encode_frame`, with up to MAX_RIDING acknowledgements to ride on it.

    The frame is kept and repeated as it is; these go along once.
    """
    if not 0xA0 <= frame[0] < 0xB7 or len(acks) > MAX_RIDING:
        raise ValueError("no map of fewer than 23 entries, or too many acknowledgements")
    return bytes([frame[0] + 1]) + frame[1:] + _ACKS + dumps(list(acks))  # one more entry of a CBOR map


def join_frames(frames: Sequence[bytes]) -> bytes:
    """The broadcast that carries these direct frames, at most 23, as they are."""
    if not 0 < len(frames) < 24:
        raise ValueError(f"{len(frames)} frames")
    return bytes([0x80 + len(frames)]) + b"".join(frames)  # the header of a CBOR array


def decode_frame(payload: bytes) -> Envelope | None:
    """The envelope of a direct frame, None if it is of a kind we do not know.

    Raises RemoteProtocolError.
    """
    return _from_wire(strict_loads(payload, max_depth=MAX_DEPTH))


def decode_broadcast(payload: bytes) -> list[Envelope]:
    """The envelopes of a broadcast, those of unknown kinds left out. Raises RemoteProtocolError."""
    value = strict_loads(payload, max_depth=MAX_DEPTH)
    if not isinstance(value, list):
        raise RemoteProtocolError("a broadcast is not an array of envelopes")
    if len(value) > MAX_BROADCAST_ENVELOPES:
        raise RemoteProtocolError(f"a broadcast of {len(value)} envelopes")
    return [envelope for item in value if (envelope := _from_wire(item)) is not None]


def _to_wire(envelope: Envelope) -> dict[str, Any]:
    message = envelope.message
    lifted = _lifted(type(message))
    wire: dict[str, Any] = {"v": VERSION, "id": envelope.id, "kind": message.kind, "sent": envelope.sent}
    if envelope.to is not None:
        wire["to"] = envelope.to
    if "job_id" in lifted:
        wire["job"] = message.job_id  # type: ignore[attr-defined]
    if "execution_id" in lifted:
        wire["execution"] = message.execution_id  # type: ignore[attr-defined]
    wire["body"] = message.model_dump(mode="python", by_alias=True, exclude=set(lifted))
    return wire


def _from_wire(value: object) -> Envelope | None:
    try:
        wire = _WireEnvelope.model_validate(value)
        if wire.v != VERSION:
            raise RemoteProtocolError(f"an envelope of version {wire.v}")
        cls = KINDS.get(wire.kind)
        if cls is None:
            return None
        body = dict(wire.body)
        for field, lifted in (("job_id", wire.job), ("execution_id", wire.execution)):
            if field in _lifted(cls):
                body[field] = lifted
        return Envelope(
            id=MessageID(wire.id),
            message=cls.model_validate(body),
            to=None if wire.to is None else PeerID(wire.to),
            sent=wire.sent,
            acks=tuple(MessageID(raw) for raw in wire.acks),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RemoteProtocolError(f"malformed message: {where}: {first['msg']}") from error


_ACKS = dumps("acks")


@cache
def _lifted(cls: type[Message]) -> frozenset[str]:
    """The fields that travel in the envelope, where a relay can see them, and not in the body."""
    return frozenset({"job_id", "execution_id"} & set(cls.model_fields))
