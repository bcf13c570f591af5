"""Owners of pins: who needs a root. The names are stored on disk and shown by `content list`."""

from __future__ import annotations

USER = "user"
"""What users added or pinned."""
FETCHED = "fetched"
"""A CAR that is being imported from a gateway, until its caller holds the root."""

_EXECUTION = "execution:"
_PUBLISHED = "published:"
_FAILED = "failed:"


ANNOUNCED = (USER, f"{_PUBLISHED}*")
"""GLOB patterns of owners of what users added and jobs published: other nodes may look for that."""


def execution(execution_id: str) -> str:
    """The result of an execution that has not ended."""
    return f"{_EXECUTION}{execution_id}"


def published(execution_id: str) -> str:
    """A result that a publisher keeps in this node's store."""
    return f"{_PUBLISHED}{execution_id}"


def failed(requester: str, execution_id: str) -> str:
    """What a failed execution of this requester left."""
    return f"{_FAILED}{requester}:{execution_id}"


def requester_of_failed(owner: str) -> str | None:
    """Whose failed execution it is; None for any other owner."""
    return owner.removeprefix(_FAILED).partition(":")[0] if owner.startswith(_FAILED) else None


def is_execution(owner: str) -> bool:
    return owner.startswith(_EXECUTION)


def is_published(owner: str) -> bool:
    return owner.startswith(_PUBLISHED)
