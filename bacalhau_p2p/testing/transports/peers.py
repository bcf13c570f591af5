"""Who can be reached and who is connected is known at both ends."""

from __future__ import annotations

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.testing.transports.bench import (
    ECHO,
    PATIENCE,
    OpenTransport,
    broadcast_until_heard,
    expect,
    open_connected,
    refused,
)
from bacalhau_p2p.transports.interface import DirectFrame, PeerConnected, PeerDisconnected


async def check_unreachable_peers_are_said_to_be(open_transport: OpenTransport) -> None:
    stranger = Identity.generate().peer_id
    async with open_connected(open_transport) as (a, b):
        with trio.fail_after(PATIENCE):
            with refused(PeerUnreachable):
                await a.send(stranger, b"anybody?")
            with refused(PeerUnreachable):
                await a.open_stream(stranger, ECHO)
            with refused(PeerUnreachable):
                await a.open_stream(b.peer_id, "/nobody/speaks/this")
            for address in ("", "nonsense", f"/p2p/{stranger}", a.addresses[0].partition("/p2p/")[0]):
                with refused(PeerUnreachable):
                    await a.connect(address)
        assert set(a.peers) == {b.peer_id}


async def check_a_peer_does_not_reach_itself(open_transport: OpenTransport) -> None:
    async with open_transport(Identity.generate()) as alone:
        with trio.fail_after(PATIENCE):
            with refused(PeerUnreachable):
                await alone.connect(alone.addresses[0])
            with refused(PeerUnreachable):
                await alone.send(alone.peer_id, b"me?")
            with refused(PeerUnreachable):
                await alone.open_stream(alone.peer_id, ECHO)
        assert list(alone.peers) == []


async def check_another_peer_at_an_address_is_refused(open_transport: OpenTransport) -> None:
    stranger = Identity.generate().peer_id
    async with open_transport(Identity.generate()) as a, open_transport(Identity.generate()) as b:
        with trio.fail_after(PATIENCE), refused(PeerUnreachable):
            await a.connect(b.addresses[0].replace(b.peer_id, stranger))
        assert stranger not in a.peers


async def check_sending_dials_the_addresses_that_were_learned(open_transport: OpenTransport) -> None:
    async with open_transport(Identity.generate()) as a, open_transport(Identity.generate()) as b:
        a.learn_addresses(b.peer_id, b.addresses)
        with trio.fail_after(PATIENCE):
            await a.send(b.peer_id, b"hello")
        assert await expect(b, DirectFrame) == DirectFrame(a.peer_id, b"hello")
        with trio.fail_after(PATIENCE):
            await b.send(a.peer_id, b"hello yourself")
        assert await expect(a, DirectFrame) == DirectFrame(b.peer_id, b"hello yourself")


async def check_both_ends_hear_of_a_disconnection(open_transport: OpenTransport) -> None:
    async with open_connected(open_transport) as (a, b):
        assert b.peer_id in a.peers
        assert a.peer_id in b.peers
        await a.disconnect(b.peer_id)
        assert (await expect(a, PeerDisconnected)).peer == b.peer_id
        assert (await expect(b, PeerDisconnected)).peer == a.peer_id
        assert b.peer_id not in a.peers
        assert a.peer_id not in b.peers


async def check_a_peer_that_leaves_is_missed(open_transport: OpenTransport) -> None:
    async with open_transport(Identity.generate()) as a:
        async with open_transport(Identity.generate()) as b:
            gone = b.peer_id
            await a.connect(b.addresses[0])
            await expect(a, PeerConnected)
        assert (await expect(a, PeerDisconnected)).peer == gone
        with trio.fail_after(PATIENCE), refused(PeerUnreachable):
            await a.send(gone, b"are you there?")


async def check_a_broken_connection_is_made_again(open_transport: OpenTransport) -> None:
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
        heard = await broadcast_until_heard(b, a, b"gossip as well")
        assert heard.author == b.peer_id


async def check_a_peer_that_comes_back_elsewhere_is_found(open_transport: OpenTransport) -> None:
    wanderer = Identity.generate()
    async with open_transport(Identity.generate()) as a:
        for visit in (b"first", b"second"):
            async with open_transport(wanderer) as b:
                with trio.fail_after(PATIENCE):
                    a.learn_addresses(b.peer_id, b.addresses)
                    await a.send(b.peer_id, visit)
                assert (await expect(b, DirectFrame)).payload == visit
            await expect(a, PeerDisconnected)
