"""What all parts of the model share: frozen, validated, with Bacalhau's spelling outside."""

from __future__ import annotations

from typing import Any, NewType, Self

from pydantic import BaseModel, ConfigDict

JobID = NewType("JobID", str)
ExecutionID = NewType("ExecutionID", str)
PeerID = NewType("PeerID", str)
"""A libp2p peer id as its base58 text (`12D3Koo...`)."""

UnixSeconds = float

_INITIALISMS = {
    "id": "ID",
    "cid": "CID",
    "cpu": "CPU",
    "gpu": "GPU",
    "url": "URL",
    "api": "API",
    "dht": "DHT",
}


def wire_name(field: str) -> str:
    """The outside spelling of a field: `job_id` -> `JobID`, as in Bacalhau's JSON."""
    return "".join(_INITIALISMS.get(part, part[:1].upper() + part[1:]) for part in field.split("_"))


class Model(BaseModel):
    """A frozen value. Python spells its fields in snake_case, JSON and CBOR as Bacalhau does."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=wire_name,
        validate_by_name=True,
        validate_by_alias=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    def to_wire(self) -> dict[str, Any]:
        """Plain maps, lists, text, numbers and bytes, keyed as on the wire; defaults are kept."""
        return self.model_dump(by_alias=True, mode="python")

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """The inverse of `to_wire`. Raises pydantic's ValidationError."""
        return cls.model_validate(value)

    def replace(self, **changes: Any) -> Self:
        """A copy with these fields changed; the values are trusted, not validated."""
        return self.model_copy(update=changes)


class OpenModel(Model):
    """A value that peers of later versions may extend: fields that we do not know are ignored."""

    model_config = ConfigDict(extra="ignore")
