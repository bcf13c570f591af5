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


class PinLine(Body):
    """A line of the response with `progress`; the last one is a pin or an error."""

    fetched: int = Field(description="Bytes that were fetched for it so far.")
    total: int | None = Field(description="About the bytes of all of it; null if that is not known.")


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
