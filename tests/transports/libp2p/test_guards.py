"""Every guard against py-libp2p 0.8.1, on real processes: what it promises, and that it is needed.

A test "..._is_still_needed" takes the guard away and sees the fault. When it fails, a newer py-libp2p
has mended it: docs/transport.md names the guard that can go.
"""

from __future__ import annotations

import pytest
import trio

from tests.support.peers import hostile_peers
from tests.support.peers.peer_processes import start, start_node

pytestmark = pytest.mark.network


async def visit(address: str, stage: str, *arguments: str, times: int = 1) -> None:
    """Let a hostile peer do this and leave."""
    config = {"address": address, "stage": stage, "times": times}
    if arguments:
        config["arguments"] = list(arguments)
    async with start(hostile_peers.one_stage, **config) as hostile:
        await hostile.event("finished")


async def counted(node, counter: str, at_least: int) -> None:
    """Wait until the node has counted that many."""
    with trio.fail_after(20):
        while (await node.ask("inspect"))["counters"].get(counter, 0) < at_least:
            pass


async def works(node) -> None:
    """A newcomer can connect to this node and is heard by it."""
    async with start_node(bootstrap=node.addresses) as newcomer:
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
        counters = (await node.ask("inspect"))["counters"]
        assert counters["gossip_faults"] > 0
        assert counters["offences"] > 0


# --- 1. whatever fails while a peer is served fails alone -----------------------------------------


async def test_garbage_on_gossip_ends_its_stream_alone():
    async with start_node() as node:
        await visit(node.addresses[0], "junk_on", "/meshsub/1.1.0")
        await counted(node, "gossip_faults", at_least=1)
        await works(node)
        assert (await node.ask("inspect"))["counters"]["gossip_faults"] == 1


async def test_guarding_streams_is_still_needed():
    async with start_node(without="guarded streams") as node:
        await visit(node.addresses[0], "junk_on", "/meshsub/1.1.0")
        assert await node.ended() == 1


async def test_a_malformed_message_is_dropped_alone():
    async with start_node() as node:
        await visit(node.addresses[0], "malformed_gossip")
        await counted(node, "gossip_faults", at_least=2)
        await works(node)


async def test_guarding_messages_is_still_needed():
    async with start_node(without="guarded messages") as node:
        await visit(node.addresses[0], "malformed_gossip")
        assert await node.ended() == 1


# --- 2. inbound slots come back -------------------------------------------------------------------


async def test_inbound_slots_come_back():
    async with start_node(without="few connections") as node:
        await visit(node.addresses[0], "leave_once_muxed", times=30)
        await works(node)
        seen = await node.ask("inspect")
        assert seen["borrowed"] <= 1
        assert seen["sockets"] < 15


async def test_giving_inbound_slots_back_is_still_needed():
    async with start_node(without="own inbound handler") as node:
        await visit(node.addresses[0], "leave_once_muxed", times=30)
        async with start_node() as newcomer:
            with pytest.raises(RuntimeError, match="PeerUnreachable"):
                await newcomer.ask("connect", address=node.addresses[0])


# --- 3. nobody without a key gets in --------------------------------------------------------------


async def test_plaintext_is_refused():
    async with start_node() as node:
        async with start(hostile_peers.plaintext, address=node.addresses[0]) as stranger:
            assert (await stranger.event("finished"))["accepted"] is False
        await works(node)


async def test_refusing_plaintext_is_still_needed():
    async with (
        start(hostile_peers.stock_host) as stock,
        start(hostile_peers.plaintext, address=stock.addresses[0]) as stranger,
    ):
        assert (await stranger.event("finished"))["accepted"] is True


# --- 4. order of start ----------------------------------------------------------------------------


async def test_peers_that_dial_while_a_node_starts_hear_it_and_are_heard():
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


async def test_starting_pubsub_before_the_host_is_still_needed():
    async with (
        start_node() as node,
        start(hostile_peers.stock_late_pubsub, address=node.addresses[0]) as late,
    ):
        assert (await late.event("finished"))["known"] is False


# --- 5. bursts ------------------------------------------------------------------------------------

BURST = [f"message {number}" for number in range(60)]


async def heard_within(node, seconds: float, prefix: str = "", **wanted) -> set[str]:
    """Which of the burst's messages, told apart by their prefix, come within so many seconds."""
    heard: set[str] = set()
    with trio.move_on_after(seconds):
        while len(heard) < len(BURST):
            payload = (await node.event("Broadcast", **wanted))["payload"]
            if payload.startswith(prefix):
                heard.add(payload)
    return heard


async def test_a_burst_of_60_broadcasts_arrives():
    async with start_node() as listener, start_node(bootstrap=listener.addresses) as author:
        await author.event("PeerConnected")
        await author.ask("broadcast", payloads=BURST)
        assert await heard_within(listener, 10, peer=author.peer) == set(BURST)


async def test_turning_spam_protection_off_is_still_needed():
    async with (
        start_node() as listener,
        start_node(bootstrap=listener.addresses, without="spam protection off") as author,
    ):
        await author.event("PeerConnected")
        await author.ask("broadcast", payloads=BURST)
        await author.ask("send", peer=listener.peer, payload="that was all")
        await listener.event("DirectFrame")
        assert len(await heard_within(listener, 1, peer=author.peer)) < 30


# --- 6. sequence numbers after a restart ----------------------------------------------------------


async def heard_of_a_restarted_author(without: str | None, seconds: float) -> set[str]:
    seed = "07" * 32
    async with start_node() as listener:
        for life in ("first", "second"):
            async with start_node(bootstrap=listener.addresses, seed=seed, without=without) as author:
                await author.event("PeerConnected")
                await author.ask("broadcast", payloads=[f"{life} {message}" for message in BURST])
                if life == "first":
                    await listener.event("Broadcast", payload=f"first {BURST[-1]}")
                    continue
                return await heard_within(listener, seconds, prefix="second", peer=author.peer)
    raise AssertionError


async def test_a_restarted_author_is_heard_at_once():
    assert await heard_of_a_restarted_author(None, 15) == {f"second {message}" for message in BURST}


async def test_counting_in_nanoseconds_is_still_needed():
    assert len(await heard_of_a_restarted_author("counter in nanoseconds", 2)) < len(BURST)


# --- 7. a star ------------------------------------------------------------------------------------


async def star(without: str | None) -> tuple[int, int]:
    """How many of 20 leaves the hub keeps in its mesh, and how many of 19 hear a leaf within 2 s."""
    async with (
        start_node(without=without) as hub,
        start(hostile_peers.leaves, address=hub.addresses[0], count=20) as leaves,
    ):
        await leaves.event("connected")
        heard = (await leaves.event("heard"))["leaves"]
        return (await hub.ask("inspect"))["mesh"], heard


async def test_every_leaf_of_a_star_hears_every_other():
    assert await star(None) == (20, 19)


async def test_scaling_the_degree_is_still_needed():
    mesh, _ = await star("scaled degree")
    assert mesh < 20


# --- 8. addresses ---------------------------------------------------------------------------------


async def test_a_node_on_all_interfaces_tells_addresses_that_can_be_dialled():
    async with start_node(listen=["/ip4/0.0.0.0/tcp/0"]) as node:
        assert node.addresses
        assert not any("0.0.0.0" in address for address in node.addresses)
        for address in node.addresses:
            async with start_node() as other:
                await other.ask("connect", address=address)


async def test_announced_addresses_take_their_place():
    async with start_node(announce=["/ip4/192.0.2.7/tcp/4001"]) as node:
        assert node.addresses == [f"/ip4/192.0.2.7/tcp/4001/p2p/{node.peer}"]


async def test_expanding_addresses_is_still_needed():
    async with start_node(listen=["/ip4/0.0.0.0/tcp/0"], without="expanded addresses") as node:
        assert any("0.0.0.0" in address for address in (await node.ask("inspect"))["addresses"])


# --- 9. oneself -----------------------------------------------------------------------------------


async def test_a_node_does_not_connect_to_itself():
    async with start_node() as node:
        with pytest.raises(RuntimeError, match="node itself"):
            await node.ask("connect", address=node.addresses[0])
        assert (await node.ask("inspect"))["peers"] == []


async def test_refusing_oneself_is_still_needed():
    async with start_node(without="no self") as node:
        assert node.peer in (await node.ask("dial_raw", address=node.addresses[0]))["peers"]


# --- 10. a peer that moved ------------------------------------------------------------------------


async def test_a_peer_that_comes_back_on_another_port_is_found_at_once():
    seed = "08" * 32
    async with start_node() as node:
        for visit_number in range(3):
            async with start_node(seed=seed) as wanderer:
                await node.ask("learn", peer=wanderer.peer, addresses=wanderer.addresses)
                with trio.fail_after(2):
                    await node.ask("send", peer=wanderer.peer, payload=f"visit {visit_number}")
                await wanderer.event("DirectFrame", payload=f"visit {visit_number}")
            await node.event("PeerDisconnected", peer=wanderer.peer)
            with pytest.raises(RuntimeError, match="PeerUnreachable"):
                await node.ask("send", peer=wanderer.peer, payload="are you there?")


async def test_dialling_by_address_is_still_needed():
    seed = "09" * 32
    async with start(hostile_peers.stock_dialler) as dialler:
        async with start_node(seed=seed) as wanderer:
            assert await dialler.ask("dial", address=wanderer.addresses[0]) == "connected"
        with trio.fail_after(10):  # it has to notice first
            while await dialler.ask("dial", address=wanderer.addresses[0]) == "connected":
                pass
        async with start_node(seed=seed) as wanderer:
            assert await dialler.ask("dial", address=wanderer.addresses[0]) != "connected"
