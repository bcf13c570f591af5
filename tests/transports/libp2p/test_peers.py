"""Losing and finding peers, and limits on what one peer can use, with real processes.

Covers `sessions`, and `dialer` with `test_dialer`.
"""

from __future__ import annotations

import signal
import socket

import pytest
import trio

from bacalhau_p2p.identity.identity import Identity
from tests.support.peers import hostile_peers
from tests.support.peers.peer_processes import start, start_node

pytestmark = pytest.mark.network

SEED = "0a" * 32


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_killed_peer_is_disconnected_without_waiting_for_a_ping():
    async with start_node(without="pings") as node, start_node(bootstrap=node.addresses) as peer:
        await node.event("PeerConnected", peer=peer.peer)
        peer.signal(signal.SIGKILL)
        await node.event("PeerDisconnected", peer=peer.peer)


async def test_a_frozen_peer_is_disconnected_and_reconnects_when_it_resumes():
    async with start_node() as node, start_node(bootstrap=node.addresses) as peer:
        await node.event("PeerConnected", peer=peer.peer)
        peer.signal(signal.SIGSTOP)
        await node.event("PeerDisconnected", peer=peer.peer)
        peer.signal(signal.SIGCONT)
        await node.event("PeerConnected", peer=peer.peer)
        await node.ask("send", peer=peer.peer, payload="resumed")
        await peer.event("DirectFrame", payload="resumed")


async def test_a_frozen_peer_that_does_not_read_is_disconnected_too():
    # The frames that wait for it must not delay that.
    async with start_node() as node, start_node(bootstrap=node.addresses) as peer:
        await node.event("PeerConnected", peer=peer.peer)
        await node.ask("send", peer=peer.peer, payload="opens the stream")
        await peer.event("DirectFrame")
        peer.signal(signal.SIGSTOP)
        await node.ask("fill", peer=peer.peer, size=500_000)
        await node.event("PeerDisconnected", peer=peer.peer)


async def test_a_bootstrap_peer_that_starts_later_is_found_and_start_up_does_not_wait():
    address = f"/ip4/127.0.0.1/tcp/{free_port()}"
    first = Identity.generate(bytes.fromhex(SEED)).peer_id
    async with start_node(bootstrap=[f"{address}/p2p/{first}"]) as node:
        assert (await node.ask("inspect"))["peers"] == []
        async with start_node(listen=[address], seed=SEED):
            await node.event("PeerConnected", peer=first)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
@pytest.mark.parametrize("host", ["ip6/::1", "ip6/::"])
async def test_peers_find_each_other_by_ipv6(host):
    async with start_node(listen=[f"/{host}/tcp/0"]) as node:
        address = next(a for a in node.addresses if a.startswith("/ip6/::1/"))
        async with start_node(bootstrap=[address]) as peer:
            await node.event("PeerConnected", peer=peer.peer)


async def test_a_bootstrap_peer_is_found_by_a_name_of_this_computer():
    async with start_node() as node:
        address = node.addresses[0].replace("/ip4/127.0.0.1/", "/dns4/localhost/")
        async with start_node(bootstrap=[address]) as peer:
            await node.event("PeerConnected", peer=peer.peer)


async def test_a_bootstrap_peer_that_restarts_is_found_again():
    address = f"/ip4/127.0.0.1/tcp/{free_port()}"
    first = Identity.generate(bytes.fromhex(SEED)).peer_id
    async with start_node(bootstrap=[f"{address}/p2p/{first}"]) as node:
        for _ in range(2):
            async with start_node(listen=[address], seed=SEED):
                await node.event("PeerConnected", peer=first)
            await node.event("PeerDisconnected", peer=first)


async def test_the_bootstrap_peers_may_include_the_node_itself():
    port = free_port()
    own = Identity.generate(bytes.fromhex(SEED)).peer_id
    address = f"/ip4/127.0.0.1/tcp/{port}"
    async with start_node(listen=[address], bootstrap=[f"{address}/p2p/{own}"], seed=SEED) as node:
        assert (await node.ask("inspect"))["peers"] == []


async def test_peers_that_dial_each_other_at_once_are_connected_once():
    ports = [free_port(), free_port()]
    seeds = ["0b" * 32, "0c" * 32]
    addresses = [
        f"/ip4/127.0.0.1/tcp/{port}/p2p/{Identity.generate(bytes.fromhex(seed)).peer_id}"
        for port, seed in zip(ports, seeds, strict=True)
    ]
    async with (
        start_node(
            listen=[addresses[0].partition("/p2p/")[0]], seed=seeds[0], bootstrap=[addresses[1]]
        ) as one,
        start_node(
            listen=[addresses[1].partition("/p2p/")[0]], seed=seeds[1], bootstrap=[addresses[0]]
        ) as other,
    ):
        await one.event("PeerConnected", peer=other.peer)
        await other.event("PeerConnected", peer=one.peer)
        async with trio.open_nursery() as nursery:  # both open the direct stream at once
            nursery.start_soon(lambda: one.ask("send", peer=other.peer, payload="one"))
            nursery.start_soon(lambda: other.ask("send", peer=one.peer, payload="other"))
        await other.event("DirectFrame", payload="one")
        await one.event("DirectFrame", payload="other")
        assert (await one.ask("inspect"))["peers"] == [other.peer]


async def test_a_banned_peer_stays_out_and_others_do_not():
    async with start_node() as node, start_node() as bad, start_node(bootstrap=node.addresses) as good:
        await bad.ask("connect", address=node.addresses[0])
        await node.event("PeerConnected", peer=bad.peer)
        await node.ask("ban", peer=bad.peer)
        await bad.event("PeerDisconnected", peer=node.peer)
        await bad.ask("learn", peer=node.peer, addresses=node.addresses)
        with pytest.raises(RuntimeError, match="PeerUnreachable"):
            await bad.ask("send", peer=node.peer, payload="banned")
        with pytest.raises(RuntimeError, match="banned"):
            await node.ask("send", peer=bad.peer, payload="banned too")
        with pytest.raises(RuntimeError, match="PeerUnreachable"):
            await bad.ask("connect", address=node.addresses[0])
        await good.ask("send", peer=node.peer, payload="hello")
        await node.event("DirectFrame", peer=good.peer, payload="hello")


async def test_a_peer_that_keeps_breaking_the_framing_is_banned():
    async with start_node() as node:
        async with start(hostile_peers.repeat_offender, address=node.addresses[0], times=60) as hostile:
            await hostile.event("finished")
        counters = (await node.ask("inspect"))["counters"]
        assert counters["peers_banned"] == 1
        assert counters["offences"] == 10
        assert counters["connections_refused"] > 0


async def test_one_peer_cannot_take_all_streams():
    async with (
        start_node() as node,
        start(hostile_peers.stream_hog, address=node.addresses[0], count=150) as hog,
    ):
        assert 50 <= (await hog.event("finished"))["kept"] <= 64
        async with start_node(bootstrap=node.addresses) as other:
            await other.event("PeerConnected", peer=node.peer)
            await other.ask("send", peer=node.peer, payload="hello")
            await node.event("DirectFrame", peer=other.peer, payload="hello")


async def test_one_peer_cannot_take_many_connections():
    async with start_node() as node:
        config = {"address": node.addresses[0], "count": 12}
        async with start(hostile_peers.connection_hog, **config) as hog:
            for _ in range(config["count"] - 4):
                await hog.event("closed")


async def test_half_open_connections_do_not_keep_newcomers_out():
    async with start_node(without="handshake timeout") as node, start_node() as newcomer:
        async with start(hostile_peers.half_open, address=node.addresses[0], count=200):
            await newcomer.ask("connect", address=node.addresses[0])
        assert (await node.ask("inspect"))["counters"]["handshakes_dropped"] > 0
