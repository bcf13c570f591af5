"""The base of all models: frozen, validated, and spelled like Bacalhau in JSON and CBOR."""

from __future__ import annotations

from typing import Annotated, Any, NewType, Self

from pydantic import BaseModel, ConfigDict, Field

JobID = NewType("JobID", str)
ExecutionID = NewType("ExecutionID", str)
PeerID = NewType("PeerID", str)
"""A libp2p peer id as its base58 text (`12D3Koo...`)."""

MAX_TIME = 2**34
"""UNIX seconds of the latest time that is accepted, in the year 2514."""

UnixSeconds = Annotated[float, Field(ge=0, le=MAX_TIME)]

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
    """The name of a field in JSON and CBOR: `job_id` -> `JobID`, as Bacalhau spells it."""
    return "".join(_INITIALISMS.get(part, part[:1].upper() + part[1:]) for part in field.split("_"))


class Model(BaseModel):
    """A frozen value. Its fields are snake_case in Python, and spelled like Bacalhau's in JSON and CBOR.

    Unknown fields are ignored, because later versions may add some. Numbers are finite.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        alias_generator=wire_name,
        validate_by_name=True,
        validate_by_alias=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    def to_wire(self) -> dict[str, Any]:
        """As plain maps, lists, text, numbers and bytes, with the names of the wire. Keeps default values."""
        return self.model_dump(by_alias=True, mode="python")

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """The inverse of `to_wire`. Raises pydantic's ValidationError."""
        return cls.model_validate(value)

    def replace(self, **changes: Any) -> Self:
        """A copy with these fields changed. The new values are not validated."""
        return self.model_copy(update=changes)


class ClosedModel(Model):
    """A value that must be understood completely, as `Params` of an engine: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")
