"""The view of the content store: what is pinned, and how much room is in use."""

from __future__ import annotations

from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.ipfs.store import pin_owners
from bacalhau_p2p.model.quantities import size_text
from bacalhau_p2p.node import Node
from bacalhau_p2p.page.view import Values

PINS_SHOWN = 500


async def content_values(node: Node, notice: str = "") -> Values:
    now = node.clock()
    pins = [pin for pin in await node.content.pins() if pin.expires is None or pin.expires > now]
    return {
        "notice": notice,
        "used": node.content.used,
        "quota": node.content.quota,
        "more": max(0, len(pins) - PINS_SHOWN),
        "pins": [
            {
                "cid": str(pin.cid),
                "owner": pin.owner,
                "expires": pin.expires,
                "removable": not pin_owners.is_execution(pin.owner),
            }
            for pin in pins[:PINS_SHOWN]
        ],
    }


async def unpin(node: Node, cid: str, owner: str) -> str:
    """Remove a pin, and say so. Raises InvalidCID, ContentInUse."""
    root = CID.parse(cid)
    removed = await node.unpin(root, owner)
    return f"{root} is no longer pinned by {owner}" if removed else f"{root} was not pinned by {owner}"


async def collect(node: Node) -> str:
    """Delete what is neither pinned nor in use, and say how much that was."""
    removed = await node.content.collect()
    return f"deleted {removed.blocks} block{'' if removed.blocks == 1 else 's'}, {size_text(removed.bytes)}"
