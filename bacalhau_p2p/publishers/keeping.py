"""Keeping a published result in this node's own store."""

from __future__ import annotations

from bacalhau_p2p.content.cid import CID
from bacalhau_p2p.content.service import Content
from bacalhau_p2p.errors import ContentError, PublisherError
from bacalhau_p2p.model.base import ExecutionID

KEEP = 30 * 24 * 3600.0
"""Seconds for which a published result is pinned."""


async def pin_result(content: Content, cid: str, execution_id: ExecutionID, expires: float) -> None:
    """Pin a result until `expires` (UNIX seconds). Raises PublisherError when it is not all here."""
    try:
        root = CID.parse(cid)
        if not await content.has(root):
            raise PublisherError(f"result {cid} is not complete in this node's store")
        await content.pin(root, f"published:{execution_id}", expires)
    except ContentError as error:
        raise PublisherError(f"result {cid} cannot be kept: {error}") from error
