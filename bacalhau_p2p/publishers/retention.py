"""How long this node keeps a published result, and how it is pinned."""

from __future__ import annotations

from bacalhau_p2p.errors import ContentError, PublisherError
from bacalhau_p2p.ipfs.content.content import Content
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.base import ExecutionID

RETENTION = 30 * 24 * 3600.0
"""Seconds for which a published result is pinned."""
PUBLISH_TIMEOUT = 14 * 60.0
"""Seconds for a service to confirm a result: less than what an execution has to publish."""


async def pin_result(content: Content, cid: str, execution_id: ExecutionID, expires: float) -> None:
    """Pin a result until `expires` (UNIX seconds), safe from a power cut before its publication is reported.

    Raises PublisherError when the result is incomplete here, or when the disk refuses.
    """
    try:
        root = CID.parse(cid)
        if not await content.has(root):
            raise PublisherError(f"result {cid} is incomplete in this node's store")
        await content.pin(root, pin_owners.published(execution_id), expires)
        await content.sync(root)
    except ContentError as error:
        raise PublisherError(f"pinning result {cid} failed: {error}") from error
