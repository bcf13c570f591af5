"""The encoding of messages: plain CBOR maps, decoded strictly.

A direct frame contains one envelope, a broadcast an array of them, so that announcements that wait at the
same time travel as one. Malformed data raises RemoteProtocolError. An envelope of an unknown kind decodes to
None, because later versions may add kinds.
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
"""Nested maps and arrays. A job with parameters has about 10."""
MAX_BROADCAST_ENVELOPES = 1_000
MESSAGE_ID_BYTES = 16
MAX_ACKS = 1_000
"""Maximum acknowledgements on one envelope."""

MessageID = NewType("MessageID", bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A message with its id and addressee.

    `to` is None in a broadcast. `sent` is the sender's clock, for logs only. `acks` are acknowledgements that
    go along, with the meaning of an `Ack` message.
    """

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
    acks: Annotated[list[_WireID], Field(max_length=MAX_ACKS)] = []


def encode_frame(envelope: Envelope) -> bytes:
    """One direct frame."""
    return dumps(_to_wire(envelope))


def encode_broadcast(envelopes: Sequence[Envelope]) -> bytes:
    """One broadcast of up to MAX_BROADCAST_ENVELOPES messages."""
    return dumps([_to_wire(envelope) for envelope in envelopes])


def with_acks(frame: bytes, acks: Sequence[MessageID]) -> bytes:
    """A frame of `encode_frame` with up to MAX_ACKS acknowledgements.

    The frame itself is stored and repeated without them.
    """
    if not 0xA0 <= frame[0] < 0xB7:
        raise ValueError("not a frame: it is no CBOR map of fewer than 23 entries")
    if len(acks) > MAX_ACKS:
        raise ValueError(f"too many acknowledgements: {len(acks)}; the limit is {MAX_ACKS}")
    return bytes([frame[0] + 1]) + frame[1:] + _ACKS + dumps(list(acks))  # adds an entry to a CBOR map


def join_frames(frames: Sequence[bytes]) -> bytes:
    """A broadcast that contains these direct frames unchanged, at most 23."""
    if not 0 < len(frames) < 24:
        raise ValueError(f"{len(frames)} frames; a broadcast carries 1 to 23")
    return bytes([0x80 + len(frames)]) + b"".join(frames)  # the header of a CBOR array


def decode_frame(payload: bytes) -> Envelope | None:
    """The envelope of a direct frame, or None for an unknown kind. Raises RemoteProtocolError."""
    return _from_wire(strict_loads(payload, max_depth=MAX_DEPTH))


def decode_broadcast(payload: bytes) -> list[Envelope]:
    """The envelopes of a broadcast, without those of unknown kinds. Raises RemoteProtocolError."""
    value = strict_loads(payload, max_depth=MAX_DEPTH)
    if not isinstance(value, list):
        raise RemoteProtocolError("a broadcast is not an array of envelopes")
    if len(value) > MAX_BROADCAST_ENVELOPES:
        limit = MAX_BROADCAST_ENVELOPES
        raise RemoteProtocolError(f"a broadcast of {len(value)} envelopes; the limit is {limit}")
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
            raise RemoteProtocolError(f"an envelope of version {wire.v}, not {VERSION}")
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
    """The fields that are in the envelope, where a relay can see them, and not in the body."""
    return frozenset({"job_id", "execution_id"} & set(cls.model_fields))
