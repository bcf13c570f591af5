"""Every guard against py-libp2p 0.8.1, on real processes: what it promises, and that it is needed."""

from __future__ import annotations

import hostile_peers
import pytest
from peer_processes import start, start_node

pytestmark = pytest.mark.network

JOINED_WITHIN = 3.0
"""Seconds in which two processes find each other."""


async def visit(address: str, stage: str, *arguments: str, times: int = 1) -> None:
    """Let a hostile peer do this and leave."""
    config = {"address": address, "stage": stage, "times": times}
    if arguments:
        config["arguments"] = list(arguments)
    async with start(hostile_peers.one_stage, **config) as hostile:
        await hostile.event("finished")


async def works(node, **config) -> None:
    """A newcomer can connect to this node, and is heard by it."""
    async with start_node(bootstrap=node.addresses, **config) as newcomer:
        await newcomer.event("PeerConnected", peer=node.peer)
        await newcomer.ask("broadcast", payloads=["hello"])
        await node.event("Broadcast", peer=newcomer.peer, payload="hello")
        await newcomer.ask("send", peer=node.peer, payload="hello there")
        await node.event("DirectFrame", peer=newcomer.peer, payload="hello there")


async def test_a_hostile_peer_of_300_visits_leaves_a_node_that_accepts_the_301st():
    async with start_node() as node:
        address = node.addresses[0]
        async with start(hostile_peers.visitor, address=address, visits=300) as hostile:
            await hostile.event("finished", patience=90)
        await works(node)
        seen = await node.ask("inspect")
        assert seen["counters"]["gossip_faults"] > 0
        assert seen["counters"]["offences"] > 0
