"""Opening and closing the transport."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from bacalhau_p2p.errors import PeerUnreachable, SettingsError
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.access_list import AccessList
from bacalhau_p2p.testing.transports import HOLD, hold, open_connected
from bacalhau_p2p.transports.interface import Broadcast
from bacalhau_p2p.transports.libp2p.transport import open_libp2p

pytestmark = pytest.mark.network


def sockets() -> int:
    return sum(path.is_socket() for path in Path("/proc/self/fd").iterdir())


async def test_no_task_and_no_socket_is_left():
    before = sockets(), trio.lowlevel.current_statistics().tasks_living
    for _ in range(2):
        async with open_connected(open_libp2p, 3) as (one, middle, _):
            middle.handle_streams(HOLD, hold)
            await one.open_stream(middle.peer_id, HOLD)
            await one.send(middle.peer_id, b"last")
        assert (sockets(), trio.lowlevel.current_statistics().tasks_living) == before


async def test_frames_sent_right_before_closing_arrive():
    async with open_libp2p(Identity.generate()) as listener:
        async with open_libp2p(Identity.generate()) as author:
            await author.connect(listener.addresses[0])
            for number in range(100):
                await author.send(listener.peer_id, b"%d" % number)
        frames = []
        with trio.fail_after(10):
            while len(frames) < 100:
                item = await listener.incoming.receive()
                frames += [item.payload] if hasattr(item, "payload") else []
        assert frames == [b"%d" % number for number in range(100)]


async def test_an_error_in_the_block_comes_out_and_leaves_no_socket():
    before = sockets()
    with pytest.raises(RuntimeError, match="a fault of the node"):
        async with open_libp2p(Identity.generate()):
            raise RuntimeError("a fault of the node")
    assert sockets() == before


async def test_a_port_in_use_is_a_settings_error_although_py_libp2p_would_share_it():
    async with open_libp2p(Identity.generate()) as first:
        address = first.addresses[0].partition("/p2p/")[0]
        with pytest.raises(SettingsError, match="in use"):
            async with open_libp2p(Identity.generate(), listen=[address]):
                pass


async def test_a_denied_peer_can_neither_connect_nor_be_dialled_nor_be_heard_by_way_of_others():
    bob, carol = Identity.generate(), Identity.generate()
    access = AccessList(denied=frozenset({bob.peer_id}))
    async with (
        open_libp2p(Identity.generate(), access=access) as alice,
        open_libp2p(carol) as between,
        open_libp2p(bob) as denied,
    ):
        for transport in (alice, between, denied):
            await transport.subscribe("news")
        with pytest.raises(PeerUnreachable):
            await alice.connect(denied.addresses[0])
        with pytest.raises(PeerUnreachable, match="it may refuse this node"):
            await denied.connect(alice.addresses[0])
        await between.connect(alice.addresses[0])
        await denied.connect(between.addresses[0])
        authors = set()
        with trio.fail_after(20):
            while not authors or not alice.counters.get("broadcasts_refused"):
                await denied.broadcast("news", b"of bob")
                await between.broadcast("news", b"of carol")
                with trio.move_on_after(0.2):
                    while item := await alice.incoming.receive():
                        authors |= {item.author} if isinstance(item, Broadcast) else set()
        assert authors == {carol.peer_id}
        assert bob.peer_id not in alice.peers
