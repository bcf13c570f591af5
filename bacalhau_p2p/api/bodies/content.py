"""Content and its pins."""

from __future__ import annotations

from pydantic import Field

from bacalhau_p2p.api.bodies.base import Body


class Added(Body):
    cid: str


class PinBody(Body):
    cid: str
    owner: str
    expires: int | None = Field(description="Nanoseconds since 1970; null for never.")


class ListedPin(PinBody):
    size: int | None = Field(description="Bytes; null if part of the content is missing.")


class PinPage(Body):
    items: list[ListedPin]
    used: int = Field(description="Bytes.")
    quota: int = Field(description="Bytes.")


class Removed(Body):
    blocks: int
    bytes: int
    used: int = Field(description="Bytes that are left.")


class Nothing(Body):
    """An empty object."""
