"""The in-memory transport.

Covers also `connections`, `delivery_queue`, `endpoint`, `links`, `streams` and `memory.transport`.
"""

from __future__ import annotations

from random import Random

import pytest
import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.testing.transports import CHECKS, ECHO, echo, expect
from bacalhau_p2p.transports.interface import (
    Broadcast,
    DirectFrame,
    Incoming,
    PeerConnected,
    PeerDisconnected,
    Transport,
)
from bacalhau_p2p.transports.memory.links import LinkConditions
from bacalhau_p2p.transports.memory.network import MemoryNetwork

A, B, C = PeerID("alice"), PeerID("bob"), PeerID("carol")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check, autojump_clock):
    await check(MemoryNetwork(full_mesh=False).open)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance_over_slow_links(check, autojump_clock):
    slow = LinkConditions(delay=0.03, jitter=0.02)
    await check(MemoryNetwork(full_mesh=False, conditions=slow, random=Random(3)).open)


def drain(transport: Transport) -> list[Incoming]:
    arrived = []
    while len(transport.incoming):
        arrived.append(transport.incoming.receive_nowait())
    return arrived


async def payloads(transport: Transport, kind: type[DirectFrame] | type[Broadcast]) -> list[bytes]:
    """What has arrived once everything in flight is delivered."""
    await trio.sleep(60)
    return [arrived.payload for arrived in drain(transport) if isinstance(arrived, kind)]


async def test_a_full_mesh_is_connected_on_entry(autojump_clock):
    network = MemoryNetwork()
    async with network.open(A) as a, network.open(Identity.generate(bytes(32))) as b, network.open(C) as c:
        assert sorted(a.peers) == sorted([b.peer_id, C])
        assert {(await expect(c, PeerConnected)).peer for _ in range(2)} == {A, b.peer_id}


async def test_loss_drops_the_given_share_of_messages(autojump_clock):
    network = MemoryNetwork(random=Random(1), conditions=LinkConditions(loss=0.3))
    async with network.open(A) as a, network.open(B) as b:
        await b.subscribe("t")
        for number in range(500):
            await a.send(B, b"%d" % number)
            await a.broadcast("t", b"%d" % number)
        await trio.sleep(1)
        arrived = drain(b)
        frames = [item.payload for item in arrived if isinstance(item, DirectFrame)]
        assert 310 < len(frames) < 390
        assert frames == sorted(frames, key=int)
        assert 310 < sum(isinstance(item, Broadcast) for item in arrived) < 390


async def test_delay_applies_to_frames_and_streams(autojump_clock):
    network = MemoryNetwork(conditions=LinkConditions(delay=3))
    async with network.open(A) as a, network.open(B) as b:
        b.handle_streams(ECHO, echo)
        await expect(b, PeerConnected)
        start = trio.current_time()
        await a.send(B, b"frame")
        await expect(b, DirectFrame)
        assert trio.current_time() - start == pytest.approx(3)
        stream = await a.open_stream(B, ECHO)
        assert trio.current_time() - start == pytest.approx(9)
        await stream.send_all(b"there and back")
        assert await stream.receive_some() == b"there and back"
        assert trio.current_time() - start == pytest.approx(15)


async def test_conditions_can_be_set_for_one_direction_of_one_link(autojump_clock):
    network = MemoryNetwork()
    network.set_conditions(LinkConditions(loss=1), source=A, target=B)
    async with network.open(A) as a, network.open(B) as b, network.open(C) as c:
        await a.send(B, b"lost")
        await a.send(C, b"arrives")
        await b.send(A, b"arrives")
        assert await payloads(b, DirectFrame) == []
        assert await payloads(c, DirectFrame) == [b"arrives"]
        assert await payloads(a, DirectFrame) == [b"arrives"]


async def test_repetition_delivers_twice(autojump_clock):
    network = MemoryNetwork(conditions=LinkConditions(repetition=1, delay=0.1))
    async with network.open(A) as a, network.open(B) as b:
        await a.send(B, b"x")
        assert await payloads(b, DirectFrame) == [b"x", b"x"]


async def test_reordering_lets_later_messages_pass(autojump_clock):
    network = MemoryNetwork(random=Random(5), conditions=LinkConditions(reordering=0.3, delay=0.01))
    async with network.open(A) as a, network.open(B) as b:
        for number in range(40):
            await a.send(B, b"%d" % number)
        arrived = await payloads(b, DirectFrame)
        assert sorted(arrived, key=int) == [b"%d" % number for number in range(40)]
        assert arrived != sorted(arrived, key=int)


async def test_the_same_seed_repeats_a_run(autojump_clock):
    async def run(seed: int) -> list[bytes]:
        conditions = LinkConditions(loss=0.2, repetition=0.2, reordering=0.2, jitter=0.5)
        network = MemoryNetwork(random=Random(seed), conditions=conditions)
        async with network.open(A) as a, network.open(B) as b:
            for number in range(60):
                await a.send(B, b"%d" % number)
            return await payloads(b, DirectFrame)

    assert await run(1) == await run(1)
    assert await run(1) != await run(2)


async def test_a_partition_disconnects_after_a_while_and_heals(autojump_clock):
    network = MemoryNetwork(notice_after=5, redial_after=2)
    async with network.open(A) as a, network.open(B) as b, network.open(C):
        b.handle_streams(ECHO, echo)
        stream = await a.open_stream(B, ECHO)
        assert {(await expect(a, PeerConnected)).peer for _ in range(2)} == {B, C}
        start = trio.current_time()
        network.partition([A], [B, C])
        await a.send(B, b"lost")  # the connection still looks alive
        assert {(await expect(a, PeerDisconnected)).peer for _ in range(2)} == {B, C}
        assert trio.current_time() - start == pytest.approx(5)
        assert (await expect(b, PeerDisconnected)).peer == A
        assert list(b.peers) == [C]
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(PeerUnreachable):
            await a.send(B, b"unreachable")
        healed = trio.current_time()
        network.heal()
        assert {(await expect(a, PeerConnected)).peer for _ in range(2)} == {B, C}
        assert trio.current_time() - healed == pytest.approx(2)
        assert sorted(a.peers) == [B, C]
        await a.send(B, b"back")
        assert await payloads(b, DirectFrame) == [b"back"]


async def test_a_short_cut_only_delays_a_stream(autojump_clock):
    network = MemoryNetwork(notice_after=5)
    async with network.open(A) as a, network.open(B) as b:
        b.handle_streams(ECHO, echo)
        stream = await a.open_stream(B, ECHO)
        network.cut(A, B)
        await stream.send_all(b"patience")
        with trio.move_on_after(3) as waiting:
            await stream.receive_some()
        assert waiting.cancelled_caught
        network.heal(A, B)
        assert await stream.receive_some() == b"patience"
        await trio.sleep(10)
        assert list(a.peers) == [B]


async def test_a_one_way_cut_loses_one_direction_until_it_is_noticed(autojump_clock):
    network = MemoryNetwork(notice_after=5)
    async with network.open(A) as a, network.open(B) as b:
        network.cut(A, B, one_way=True)
        await a.send(B, b"lost")
        await b.send(A, b"arrives")
        assert (await expect(a, DirectFrame)).payload == b"arrives"
        await expect(a, PeerDisconnected)
        assert await payloads(b, DirectFrame) == []
        with pytest.raises(PeerUnreachable):
            await b.send(A, b"unreachable as well")


async def test_gossip_goes_around_a_cut_link_but_not_through_a_partition(autojump_clock):
    network = MemoryNetwork()
    async with network.open(A) as a, network.open(B) as b, network.open(C) as c:
        for transport in (a, b, c):
            await transport.subscribe("t")
        network.cut(A, B)
        await a.broadcast("t", b"around")
        assert await expect(b, Broadcast) == Broadcast(A, "t", b"around")
        network.cut(C, B)
        await a.broadcast("t", b"parted")
        assert await payloads(b, Broadcast) == []
        assert await payloads(c, Broadcast) == [b"around", b"parted"]


async def test_a_peer_that_restarts_is_connected_again(autojump_clock):
    network = MemoryNetwork()
    async with network.open(A) as a:
        for _ in range(2):
            async with network.open(B):
                assert (await expect(a, PeerConnected)).peer == B
            assert (await expect(a, PeerDisconnected)).peer == B
        with pytest.raises(PeerUnreachable):
            await a.send(B, b"gone")


async def test_a_peer_cannot_be_opened_twice():
    network = MemoryNetwork()
    async with network.open(A):
        with pytest.raises(ValueError, match="open already"):
            await network.open(A).__aenter__()


@pytest.mark.parametrize("wrong", [{"loss": 1.1}, {"repetition": -0.1}, {"delay": -1}, {"jitter": -1}])
def test_impossible_conditions_are_rejected(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LinkConditions(**wrong)
