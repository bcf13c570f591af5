"""Both sides know whom they can reach and to whom they are connected."""

from __future__ import annotations

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.testing.transports.bench import (
    ECHO,
    PATIENCE,
    OpenTransport,
    broadcast_until_received,
    expect,
    open_connected,
    raises,
)
from bacalhau_p2p.transports.interface import DirectFrame, PeerConnected, PeerDisconnected


async def check_unreachable_peers_raise_peer_unreachable(open_transport: OpenTransport) -> None:
    unknown = Identity.generate().peer_id
    async with open_connected(open_transport) as (a, b):
        with trio.fail_after(PATIENCE):
            with raises(PeerUnreachable):
                await a.send(unknown, b"unknown peer")
            with raises(PeerUnreachable):
                await a.open_stream(unknown, ECHO)
            with raises(PeerUnreachable):
                await a.open_stream(b.peer_id, "/unknown/protocol")
            for address in ("", "nonsense", f"/p2p/{unknown}", a.addresses[0].partition("/p2p/")[0]):
                with raises(PeerUnreachable):
                    await a.connect(address)
        assert set(a.peers) == {b.peer_id}


async def check_a_peer_does_not_reach_itself(open_transport: OpenTransport) -> None:
    async with open_transport(Identity.generate()) as alone:
        with trio.fail_after(PATIENCE):
            with raises(PeerUnreachable):
                await alone.connect(alone.addresses[0])
            with raises(PeerUnreachable):
                await alone.send(alone.peer_id, b"to itself")
            with raises(PeerUnreachable):
                await alone.open_stream(alone.peer_id, ECHO)
        assert list(alone.peers) == []


async def check_a_different_peer_at_an_address_is_rejected(open_transport: OpenTransport) -> None:
    unknown = Identity.generate().peer_id
    async with open_transport(Identity.generate()) as a, open_transport(Identity.generate()) as b:
        with trio.fail_after(PATIENCE), raises(PeerUnreachable):
            await a.connect(b.addresses[0].replace(b.peer_id, unknown))
        assert unknown not in a.peers


async def check_sending_dials_the_learned_addresses(open_transport: OpenTransport) -> None:
    async with open_transport(Identity.generate()) as a, open_transport(Identity.generate()) as b:
        a.learn_addresses(b.peer_id, b.addresses)
        with trio.fail_after(PATIENCE):
            await a.send(b.peer_id, b"hello")
        assert await expect(b, DirectFrame) == DirectFrame(a.peer_id, b"hello")
        with trio.fail_after(PATIENCE):
            await b.send(a.peer_id, b"hello back")
        assert await expect(a, DirectFrame) == DirectFrame(b.peer_id, b"hello back")


async def check_both_sides_learn_of_a_disconnection(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        assert b.peer_id in a.peers
        assert a.peer_id in b.peers
        await a.disconnect(b.peer_id)
        assert (await expect(a, PeerDisconnected)).peer == b.peer_id
        assert (await expect(b, PeerDisconnected)).peer == a.peer_id
        assert b.peer_id not in a.peers
        assert a.peer_id not in b.peers


async def check_a_peer_that_closes_is_disconnected(open_transport: OpenTransport) -> None:
    async with open_transport(Identity.generate()) as a:
        async with open_transport(Identity.generate()) as b:
            gone = b.peer_id
            await a.connect(b.addresses[0])
            await expect(a, PeerConnected)
        assert (await expect(a, PeerDisconnected)).peer == gone
        with trio.fail_after(PATIENCE), raises(PeerUnreachable):
            await a.send(gone, b"too late")


async def check_a_lost_connection_is_restored(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        await a.send(b.peer_id, b"before")
        await expect(b, DirectFrame)
        await b.disconnect(a.peer_id)
        await expect(a, PeerDisconnected)
        await expect(b, PeerDisconnected)
        a.learn_addresses(b.peer_id, b.addresses)
        with trio.fail_after(PATIENCE):
            await a.send(b.peer_id, b"after")
        assert (await expect(b, PeerConnected)).peer == a.peer_id
        assert (await expect(b, DirectFrame)).payload == b"after"
        with trio.fail_after(PATIENCE):
            await b.send(a.peer_id, b"too")
        assert (await expect(a, DirectFrame)).payload == b"too"
        received = await broadcast_until_received(b, a, b"gossip as well")
        assert received.author == b.peer_id


async def check_a_peer_that_moved_is_reached_at_its_new_address(open_transport: OpenTransport) -> None:
    moving = Identity.generate()
    async with open_transport(Identity.generate()) as a:
        for visit in (b"first", b"second"):
            async with open_transport(moving) as b:
                with trio.fail_after(PATIENCE):
                    a.learn_addresses(b.peer_id, b.addresses)
                    await a.send(b.peer_id, visit)
                assert (await expect(b, DirectFrame)).payload == visit
            await expect(a, PeerDisconnected)
