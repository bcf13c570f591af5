"""Large jobs: announced by their outline, and fetched from their requester by those that may bid."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from cbor2 import dumps
from pydantic import ValidationError

from bacalhau_p2p.bprotocol.codec import MAX_DEPTH, first_fault
from bacalhau_p2p.bprotocol.messages import JobAnnounced, JobOutlined
from bacalhau_p2p.encoding.cbor import strict_loads
from bacalhau_p2p.encoding.cids import text_of_binary
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.fields import MAX_SPEC
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.outline import JobOutline
from bacalhau_p2p.model.validation import size_of

MAX_ANNOUNCED = 4 * 1024
"""Bytes of a spec as JSON up to which it is in the announcement itself."""
_RAW_SHA256 = b"\x01\x55\x12\x20"
"""Before the digest in the CID of a raw block: version 1, raw, SHA-256 of 32 bytes."""


@dataclass(frozen=True, slots=True)
class LargeSpec:
    """A spec that is too large for an announcement, as its requester keeps it."""

    outline: JobOutline
    encoded: bytes


def large_spec(spec: JobSpec) -> LargeSpec | None:
    """What to announce instead of this spec; None if it is small."""
    if size_of(spec) <= MAX_ANNOUNCED:
        return None
    encoded = dumps(spec.to_wire())
    return LargeSpec(JobOutline.of(spec, cid=encoded_cid(encoded), size=len(encoded)), encoded)


def announcement_with(outlined: JobOutlined, encoded: bytes) -> JobAnnounced:
    """The announcement of a large job as if it had its spec in it. Raises RemoteProtocolError if this is not
    the spec that was outlined."""
    return with_spec(outlined, decode_spec(outlined.outline, encoded))


def with_spec(outlined: JobOutlined, spec: JobSpec) -> JobAnnounced:
    """The same announcement with the spec, which must be the one that was outlined."""
    terms = {name: getattr(outlined, name) for name in type(outlined).model_fields if name != "outline"}
    return JobAnnounced(spec=spec, **terms)


def decode_spec(outline: JobOutline, encoded: bytes) -> JobSpec:
    """The spec of this outline. Raises RemoteProtocolError."""
    if len(encoded) != outline.spec_size or encoded_cid(encoded) != outline.spec_cid:
        raise RemoteProtocolError("the bytes are not those of the spec that was outlined")
    value = strict_loads(encoded, max_depth=MAX_DEPTH)
    try:
        spec = JobSpec.from_wire(value)
    except ValidationError as error:
        raise RemoteProtocolError(f"malformed spec: {first_fault(error)}") from error
    if (size := size_of(spec)) > MAX_SPEC:
        raise RemoteProtocolError(f"a spec of {size} bytes; the limit is {MAX_SPEC}")
    if (field := outline.difference_to(spec)) is not None:
        raise RemoteProtocolError(f"the outline is not that of the spec: {field} differs")
    return spec


def encoded_cid(encoded: bytes) -> str:
    """The CID of an encoded spec."""
    return text_of_binary(_RAW_SHA256 + sha256(encoded).digest())
