"""The encoding of messages: plain CBOR maps, decoded strictly.

A direct frame contains one envelope, a broadcast an array of them, so that announcements that wait at the
same time travel as one. Malformed data raises RemoteProtocolError. An envelope that is refused is a
`RefusedEnvelope`, which tells whom to answer; in a broadcast it does not affect the other envelopes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, NewType

from cbor2 import dumps, loads
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bacalhau_p2p.bprotocol.messages import (
    KINDS,
    MESSAGE_ID_BYTES,
    Greeting,
    JobAnnounced,
    JobOutlined,
    Message,
    NodeInfoPublished,
    WireMessageID,
)
from bacalhau_p2p.encoding.cbor import loads_unchecked, require_plain
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.fields import MAX_SPEC
from bacalhau_p2p.model.node import MAX_NODE_INFO
from bacalhau_p2p.model.outline import MAX_OUTLINE
from bacalhau_p2p.model.validation import size_of
from bacalhau_p2p.model.wire_types import MAX_ID

VERSION = 1
MAX_DEPTH = 24
"""Nested maps and arrays. A job with parameters has about 10."""
MAX_BROADCAST_ENVELOPES = 1_000
MAX_ACKS = 1_000
"""Maximum acknowledgements on one envelope."""
MAX_FAULTS = 100
"""Faults of an envelope, beyond which none of them is named."""
MAX_KIND = 64
"""Characters of the name of a kind."""

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


class RefusedEnvelope(RemoteProtocolError):
    """An envelope that this version cannot read. Its attributes are None where they are malformed."""

    def __init__(self, reason: str, value: object) -> None:
        super().__init__(reason)
        fields = value if isinstance(value, dict) else {}
        message_id, to, kind = fields.get("id"), fields.get("to"), fields.get("kind")
        self.id: MessageID | None = None
        if isinstance(message_id, bytes) and len(message_id) == MESSAGE_ID_BYTES:
            self.id = MessageID(message_id)
        self.to = PeerID(to) if isinstance(to, str) and len(to) <= MAX_ID else None
        self.kind = kind if isinstance(kind, str) and len(kind) <= MAX_KIND else None
        job, execution = fields.get("job"), fields.get("execution")
        self.job = JobID(job) if isinstance(job, str) and 0 < len(job) <= MAX_ID else None
        self.execution = (
            ExecutionID(execution) if isinstance(execution, str) and 0 < len(execution) <= MAX_ID else None
        )


class UnknownKind(RefusedEnvelope):
    """An envelope of a kind that this version does not know: a later version may have added it."""


class _WireEnvelope(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    v: int
    id: WireMessageID
    kind: Annotated[str, Field(max_length=MAX_KIND)]
    to: Annotated[str, Field(max_length=MAX_ID)] | None = None
    job: Annotated[str, Field(min_length=1, max_length=MAX_ID)] | None = None
    execution: Annotated[str, Field(min_length=1, max_length=MAX_ID)] | None = None
    sent: float = 0.0
    body: dict[str, Any]
    acks: Annotated[list[WireMessageID], Field(max_length=MAX_ACKS)] = []


def encode_frame(envelope: Envelope) -> bytes:
    """One direct frame."""
    return dumps(_to_wire(envelope))


def encode_broadcast(envelopes: Sequence[Envelope]) -> bytes:
    """One broadcast of up to MAX_BROADCAST_ENVELOPES messages."""
    return join_frames([encode_frame(envelope) for envelope in envelopes])


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
    """A broadcast that contains these direct frames unchanged."""
    count = len(frames)
    if not 0 < count <= MAX_BROADCAST_ENVELOPES:
        raise ValueError(f"{count} frames; a broadcast carries 1 to {MAX_BROADCAST_ENVELOPES}")
    return _array_header(count) + b"".join(frames)


def _array_header(count: int) -> bytes:
    """What a CBOR array of up to 65,535 items begins with."""
    if count < 24:
        return bytes([0x80 + count])
    return bytes([0x98, count]) if count < 256 else b"\x99" + count.to_bytes(2, "big")


def kind_of(frame: bytes) -> str:
    """The kind of a message that this node has encoded."""
    return str(loads(frame)["kind"])


def decode_frame(payload: bytes) -> Envelope:
    """The envelope of a direct frame. Raises RefusedEnvelope, other RemoteProtocolError."""
    return _from_wire(loads_unchecked(payload, max_depth=MAX_DEPTH), len(payload))


def chance_of(item: object) -> tuple[JobID, float] | None:
    """The job of an announcement that not everybody may bid on, and the chance: all that most nodes look at.
    None for anything else, and for what must be looked at as a whole."""
    if type(item) is not dict or item.get("kind") not in _ANNOUNCEMENTS or item.get("v") != VERSION:
        return None
    job, body = item.get("job"), item.get("body")
    chance = body.get("chance") if type(body) is dict else None
    if type(job) is not str or not 0 < len(job) <= MAX_ID or type(chance) is not float:
        return None
    return (JobID(job), chance) if 0 < chance < 1 else None


def decode_broadcast(payload: bytes) -> list[Envelope | RefusedEnvelope]:
    """The envelopes of a broadcast, each accepted or refused by itself. Raises RemoteProtocolError."""
    return [accepted_or_refused(item, len(payload)) for item in items_of(payload)]


def items_of(payload: bytes) -> list[object]:
    """What a broadcast has for envelopes. Each is to be given to `accepted_or_refused` when its turn comes: a
    thousand take a while. Raises RemoteProtocolError."""
    value = loads_unchecked(payload, max_depth=MAX_DEPTH)
    if not isinstance(value, list):
        raise RemoteProtocolError("a broadcast is not an array of envelopes")
    if len(value) > MAX_BROADCAST_ENVELOPES:
        limit = MAX_BROADCAST_ENVELOPES
        raise RemoteProtocolError(f"a broadcast of {len(value)} envelopes; the limit is {limit}")
    return value


def accepted_or_refused(item: object, payload_size: int) -> Envelope | RefusedEnvelope:
    """The envelope that an item of a broadcast of so many bytes is."""
    try:
        return _from_wire(item, payload_size)
    except RefusedEnvelope as refused:
        return refused


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


def _from_wire(value: object, payload_size: int) -> Envelope:
    """`payload_size` is at least the size of the envelope. Raises RefusedEnvelope."""
    try:
        require_plain(value)
        return _envelope(value, payload_size)
    except ValidationError as error:
        raise RefusedEnvelope(f"malformed message: {first_fault(error)}", value) from error
    except RefusedEnvelope:
        raise
    except RemoteProtocolError as error:
        raise RefusedEnvelope(str(error), value) from error


def first_fault(error: ValidationError) -> str:
    """What is wrong first, for a reason."""
    if (count := error.error_count()) > MAX_FAULTS:  # all of them would be written down to get at the first
        return f"{count} faults"
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part)[:MAX_ID] for part in first["loc"])
    return f"{where}: {first['msg']}"


def _envelope(value: object, payload_size: int) -> Envelope:
    """Raises ValidationError, RemoteProtocolError."""
    if isinstance(value, dict) and value.get("v") != VERSION:
        raise RemoteProtocolError(f"an envelope of version {str(value.get('v'))[:20]}, not {VERSION}")
    wire = _WireEnvelope.model_validate(value)
    cls = KINDS.get(wire.kind)
    if cls is None:
        raise UnknownKind(f"unknown kind {wire.kind!r}", value)
    body = dict(wire.body)
    for field, lifted in (("job_id", wire.job), ("execution_id", wire.execution)):
        if field in _lifted(cls):
            body[field] = lifted
    limit = _SMALL.get(cls)
    if limit is not None and payload_size > limit:
        _check_size(cls, len(dumps(body)), limit)
    message = cls.model_validate(body)
    if isinstance(message, JobAnnounced) and payload_size * _JSON_GROWTH > MAX_SPEC:
        _check_size(cls, size_of(message.spec), MAX_SPEC)
    return Envelope(
        id=MessageID(wire.id),
        message=message,
        to=None if wire.to is None else PeerID(wire.to),
        sent=wire.sent,
        acks=tuple(MessageID(raw) for raw in wire.acks),
    )


def _check_size(kind: type[Message], size: int, limit: int) -> None:
    if size > limit:
        raise RemoteProtocolError(f"a {kind.kind} of {size} bytes; the limit is {limit}")


_JSON_GROWTH = 6
"""How many bytes JSON takes at most for one byte of CBOR: a control character becomes \\u0000."""


_SMALL: dict[type[Message], int] = {
    NodeInfoPublished: MAX_NODE_INFO,
    Greeting: MAX_NODE_INFO,
    JobOutlined: MAX_OUTLINE,
}
"""Kinds that every node reads, and the bytes of their bodies at most."""


_ACKS = dumps("acks")
_ANNOUNCEMENTS = frozenset({JobAnnounced.kind, JobOutlined.kind})


@cache
def _lifted(cls: type[Message]) -> frozenset[str]:
    """The fields that are in the envelope, where a relay can see them, and not in the body."""
    return frozenset({"job_id", "execution_id"} & set(cls.model_fields))
