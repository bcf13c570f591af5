"""Every guard against py-libp2p 0.8.1, with real processes: that it holds, and that it is needed.

A test "..._is_still_needed" removes the guard and sees the fault. When it fails, a newer py-libp2p has fixed
the fault: docs/transport.md names the guard that can be removed.

Covers `swarm`, `host`, `inbound_streams` and `peer_ids`.
"""

from __future__ import annotations

import pytest
import trio

from tests.support.peers import hostile_peers
from tests.support.peers.peer_processes import FAILING, start, start_node

pytestmark = pytest.mark.network


async def visit(address: str, stage: str, *arguments: str, times: int = 1) -> None:
    """Let a hostile peer do this."""
    config = {"address": address, "stage": stage, "times": times}
    if arguments:
        config["arguments"] = list(arguments)
    async with start(hostile_peers.one_stage, **config) as hostile:
        await hostile.event("finished")


async def counted(node, counter: str, at_least: int) -> None:
    """Wait until a counter of the node is that high."""
    await node.wait_until(lambda state: state["counters"].get(counter, 0) >= at_least)


async def works(node) -> None:
    """Another node can connect to this node and send to it."""
    async with start_node(bootstrap=node.addresses) as other:
        await other.event("PeerConnected", peer=node.peer)
        await other.ask("broadcast", payloads=["hello"])
        await node.event("Broadcast", peer=other.peer, payload="hello")
        await other.ask("send", peer=node.peer, payload="hello there")
        await node.event("DirectFrame", peer=other.peer, payload="hello there")


async def test_a_node_survives_300_visits_of_a_hostile_peer():
    async with start_node() as node:
        address = node.addresses[0]
        async with start(hostile_peers.visitor, address=address, visits=300) as hostile:
            await hostile.event("finished", timeout=90)
        await works(node)
        counters = (await node.ask("inspect"))["counters"]
        assert counters["gossip_faults"] > 0
        assert counters["offences"] > 0


# --- 1. a fault while a peer is served harms nothing else -----------------------------------------


async def test_garbage_on_gossip_ends_only_its_stream():
    async with start_node() as node:
        await visit(node.addresses[0], "junk_on", "/meshsub/1.1.0")
        await counted(node, "gossip_faults", at_least=1)
        await works(node)
        assert (await node.ask("inspect"))["counters"]["gossip_faults"] == 1


async def test_guarding_streams_is_still_needed():
    async with start_node(without="guarded streams") as node:
        await visit(node.addresses[0], "junk_on", FAILING)
        assert await node.ended() == 1


async def test_only_the_malformed_message_is_dropped():
    async with start_node() as node:
        await visit(node.addresses[0], "malformed_gossip")
        await counted(node, "gossip_faults", at_least=2)
        await works(node)


# --- 2. inbound slots are released -------------------------------------------------------------------


async def test_inbound_slots_are_released():
    async with start_node(without="many connections") as node:
        await visit(node.addresses[0], "leave_once_muxed", times=30)
        await works(node)
        seen = await node.ask("inspect")
        assert seen["borrowed"] <= 1
        assert seen["sockets"] < 15


async def test_releasing_inbound_slots_is_still_needed():
    async with start_node(without="own inbound handler") as node:
        await visit(node.addresses[0], "leave_once_muxed", times=30)
        async with start_node() as other:
            with pytest.raises(RuntimeError, match="PeerUnreachable"):
                await other.ask("connect", address=node.addresses[0])


# --- 3. every peer proves its identity --------------------------------------------------------------


async def test_plaintext_is_refused():
    async with start_node() as node:
        async with start(hostile_peers.plaintext, address=node.addresses[0]) as other:
            assert (await other.event("finished"))["accepted"] is False
        await works(node)


async def test_refusing_plaintext_is_still_needed():
    async with (
        start(hostile_peers.stock_host) as stock,
        start(hostile_peers.plaintext, address=stock.addresses[0]) as other,
    ):
        assert (await other.event("finished"))["accepted"] is True


# --- 4. dialling at once --------------------------------------------------------------------------


async def test_peers_that_dial_while_a_node_starts_exchange_broadcasts_with_it():
    async with (
        start_node() as first,
        start_node(bootstrap=first.addresses) as second,
        start_node(bootstrap=first.addresses) as third,
    ):
        for late in (second, third):
            await late.event("PeerConnected", peer=first.peer)
            await first.event("PeerConnected")
        await first.ask("broadcast", payloads=["to all"])
        for late in (second, third):
            await late.event("Broadcast", peer=first.peer, payload="to all")
            await late.ask("broadcast", payloads=["back"])
            await first.event("Broadcast", peer=late.peer, payload="back")


# --- 5. bursts ------------------------------------------------------------------------------------

BURST = [f"message {number}" for number in range(60)]


async def send_burst(author, prefix: str = "") -> None:
    await author.ask("broadcast", payloads=[f"{prefix}{message}" for message in BURST])


async def whole_burst(listener, author, prefix: str = "") -> set[str]:
    """Wait until all messages of a burst have arrived."""
    received: set[str] = set()
    while len(received) < len(BURST):
        payload = (await listener.event("Broadcast", peer=author.peer))["payload"]
        if payload.startswith(prefix):
            received.add(payload)
    return received


async def test_a_burst_of_60_broadcasts_arrives():
    async with start_node() as listener, start_node(bootstrap=listener.addresses) as author:
        await author.event("PeerConnected")
        await send_burst(author)
        assert await whole_burst(listener, author) == set(BURST)


# --- 6. sequence numbers after a restart ----------------------------------------------------------


async def test_broadcasts_of_a_restarted_author_arrive():
    seed = "07" * 32
    async with start_node() as listener:
        for prefix in ("first ", "second "):
            async with start_node(bootstrap=listener.addresses, seed=seed) as author:
                await author.event("PeerConnected")
                await send_burst(author, prefix)
                expected = {f"{prefix}{message}" for message in BURST}
                assert await whole_burst(listener, author, prefix) == expected


# --- 7. a star ------------------------------------------------------------------------------------


async def test_every_leaf_of_a_star_reaches_every_other():
    """After three heartbeats, in which the hub prunes its mesh."""
    async with (
        start_node() as hub,
        start(hostile_peers.leaves, address=hub.addresses[0], count=20) as leaves,
    ):
        await leaves.event("connected")
        heartbeats = (await hub.ask("inspect"))["heartbeats"]
        state = await hub.wait_until(lambda state: state["heartbeats"] >= heartbeats + 3)
        assert state["mesh"] == 20
        await leaves.ask("broadcast")
        reached = {(await leaves.event("received"))["leaf"] for _ in range(19)}
        assert len(reached) == 19


# --- 8. addresses ---------------------------------------------------------------------------------


async def test_a_node_on_all_interfaces_announces_addresses_that_can_be_dialled():
    async with start_node(listen=["/ip4/0.0.0.0/tcp/0"]) as node:
        assert node.addresses
        assert not any("0.0.0.0" in address for address in node.addresses)
        for address in node.addresses:
            async with start_node() as other:
                await other.ask("connect", address=address)


async def test_announced_addresses_replace_its_own():
    async with start_node(announce=["/ip4/192.0.2.7/tcp/4001"]) as node:
        assert node.addresses == [f"/ip4/192.0.2.7/tcp/4001/p2p/{node.peer}"]


async def test_expanding_addresses_is_still_needed():
    async with start_node(listen=["/ip4/0.0.0.0/tcp/0"], without="expanded addresses") as node:
        assert any("0.0.0.0" in address for address in (await node.ask("inspect"))["addresses"])


# --- 9. the node itself -----------------------------------------------------------------------------------


async def test_a_node_does_not_connect_to_itself():
    async with start_node() as node:
        with pytest.raises(RuntimeError, match="node itself"):
            await node.ask("connect", address=node.addresses[0])
        assert (await node.ask("inspect"))["peers"] == []


async def test_refusing_itself_is_still_needed():
    async with start_node(without="refusing itself") as node:
        assert node.peer in (await node.ask("dial_raw", address=node.addresses[0]))["peers"]


# --- 10. a peer that moved ------------------------------------------------------------------------


async def test_a_peer_that_comes_back_on_another_port_is_reached():
    seed = "08" * 32
    async with start_node() as node:
        for visit_number in range(3):
            async with start_node(seed=seed) as moving:
                await node.ask("learn", peer=moving.peer, addresses=moving.addresses)
                await node.ask("send", peer=moving.peer, payload=f"visit {visit_number}")
                await moving.event("DirectFrame", payload=f"visit {visit_number}")
            await node.event("PeerDisconnected", peer=moving.peer)
            with pytest.raises(RuntimeError, match="PeerUnreachable"):
                await node.ask("send", peer=moving.peer, payload="too late")


async def test_dialling_by_address_is_still_needed():
    seed = "09" * 32
    async with start(hostile_peers.stock_dialer) as dialer:
        async with start_node(seed=seed) as moving:
            assert await dialer.ask("dial", address=moving.addresses[0]) == "connected"
        with trio.fail_after(10):  # until it notices that the peer is gone
            while await dialer.ask("dial", address=moving.addresses[0]) == "connected":
                pass
        async with start_node(seed=seed) as moving:
            assert await dialer.ask("dial", address=moving.addresses[0]) != "connected"
