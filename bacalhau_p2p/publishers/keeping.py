"""What publishers share: keeping a result in this node's own store, and for how long to try."""

from __future__ import annotations

from dataclasses import dataclass

from bacalhau_p2p.errors import ContentError, PublisherError
from bacalhau_p2p.ipfs.content import Content
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import ExecutionID

KEEP = 30 * 24 * 3600.0
"""Seconds for which a published result is pinned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishLimits:
    """Seconds."""

    total: float = 14 * 60.0
    """Until a service must have confirmed a result: less than what an execution has to publish."""
    polls: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 15.0)
    """Between questions for the state of a result; the last one is repeated."""
    keep: float = KEEP
    """For which this node keeps a result after it was published."""


async def pin_result(content: Content, cid: str, execution_id: ExecutionID, expires: float) -> None:
    """Pin a result until `expires` (UNIX seconds), so that it survives a power cut as the news of it does.

    Raises PublisherError when it is not all here, or when the disk refuses.
    """
    try:
        root = CID.parse(cid)
        if not await content.has(root):
            raise PublisherError(f"result {cid} is not complete in this node's store")
        await content.pin(root, pin_owners.published(execution_id), expires)
        await content.secure(root)
    except ContentError as error:
        raise PublisherError(f"result {cid} cannot be kept: {error}") from error
