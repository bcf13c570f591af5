"""When a node dials others to get back into the network, and which ones."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.node import neighbours, reconnection
from bacalhau_p2p.node.known_nodes import KnownNodes
from bacalhau_p2p.node.neighbours import MAX_RETRY_INTERVAL
from bacalhau_p2p.node.neighbours_file import NeighboursFile
from bacalhau_p2p.node.reconnection import CHECK_INTERVAL, Reconnector
from bacalhau_p2p.runtime.threads import Threads
from bacalhau_p2p.transports.memory.network import MemoryNetwork

DAY = 24 * 3600.0


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "neighbours.json"


@asynccontextmanager
async def reconnecting(
    path: Path,
    memory_network: MemoryNetwork,
    identity: Identity,
    wanted: int = 4,
    known_nodes: KnownNodes | None = None,
):
    """Run a reconnector; yields its transport, and a count of the addresses that it dials."""
    async with memory_network.open(identity) as transport, trio.open_nursery() as nursery:
        dialled: Counter[str] = Counter()
        connect = transport.connect

        async def counted(address: str) -> PeerID:
            dialled[address] += 1
            return await connect(address)

        transport.connect = counted
        reconnector = Reconnector(
            transport,
            known_nodes or KnownNodes(),
            NeighboursFile(path),
            wanted=wanted,
            clock=trio.current_time,
            rng=random.Random(1),
        )
        nursery.start_soon(reconnector.run)
        yield transport, dialled
        nursery.cancel_scope.cancel()


@pytest.fixture
def jumping(autojump_clock, monkeypatch):
    """A clock that jumps. It does not wait for threads, so their calls run in place."""

    async def in_place(threads, call, *args):
        return call(*args)

    monkeypatch.setattr(Threads, "run", in_place)
    return autojump_clock  # pytest-trio looks for it here


def unreachable(peer: PeerID) -> str:
    return f"/memory/9/p2p/{peer}"


def write(path: Path, known: dict[PeerID, str], met: PeerID | None = None) -> None:
    entries = [{"id": peer, "addresses": [at], "seen": 0.0, "met": peer == met} for peer, at in known.items()]
    path.write_text(json.dumps(entries))


async def test_a_node_that_starts_alone_dials_its_neighbours_until_one_is_connected(path, jumping):
    memory_network = MemoryNetwork(full_mesh=False)
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(memory_network.open(Identity.generate()))
        absent = [Identity.generate().peer_id for _ in range(3)]
        write(path, {peer: unreachable(peer) for peer in absent} | {other.peer_id: other.addresses[0]})
        transport, dialled = await stack.enter_async_context(
            reconnecting(path, memory_network, Identity.generate())
        )
        with trio.fail_after(2 * CHECK_INTERVAL):
            while other.peer_id not in transport.peers:  # noqa: ASYNC110
                await trio.sleep(0.1)
        before = dialled.copy()
        await trio.sleep(DAY)
        assert dialled == before  # nobody else is dialled while a peer is connected


async def test_a_node_that_was_cut_off_for_hours_reconnects(path, jumping):
    memory_network, known_nodes = MemoryNetwork(full_mesh=False), KnownNodes()
    async with (
        memory_network.open(Identity.generate()) as other,
        reconnecting(path, memory_network, Identity.generate(), known_nodes=known_nodes) as (transport, _),
    ):
        await transport.connect(other.addresses[0])
        known_nodes.update(NodeInfo(id=other.peer_id, addresses=tuple(other.addresses)), trio.current_time())
        await trio.sleep(2 * CHECK_INTERVAL)
        memory_network.cut(transport.peer_id, other.peer_id)
        await trio.sleep(2 * 3600)
        assert not transport.peers
        known_nodes.expire(trio.current_time())  # a node does this at intervals
        assert known_nodes.nodes() == []
        memory_network.heal()
        await trio.sleep(MAX_RETRY_INTERVAL + 2 * CHECK_INTERVAL)
        assert list(transport.peers) == [other.peer_id]


async def test_unreachable_neighbours_are_dialled_less_and_less_often_and_then_forgotten(
    path, jumping, monkeypatch
):
    monkeypatch.setattr(neighbours, "FORGET_AFTER", 2 * DAY)
    monkeypatch.setattr(reconnection, "CHECK_INTERVAL", 30.0)
    away = Identity.generate().peer_id
    write(path, {away: (at := unreachable(away))})
    async with reconnecting(path, MemoryNetwork(full_mesh=False), Identity.generate()) as (_, dialled):
        await trio.sleep(600)
        assert 3 <= dialled[at] <= 5
        await trio.sleep(DAY)
        assert 20 <= dialled[at] <= 32
        await trio.sleep(DAY)
        before = dialled[at]
        await trio.sleep(DAY)
        assert dialled[at] == before


async def test_neighbours_with_an_earlier_connection_are_dialled_first(path, jumping):
    peers = [Identity.generate().peer_id for _ in range(20)]
    write(path, {peer: unreachable(peer) for peer in peers}, met=peers[13])
    async with reconnecting(path, MemoryNetwork(full_mesh=False), Identity.generate(), wanted=2) as (
        _,
        dialled,
    ):
        await trio.sleep(1.5 * CHECK_INTERVAL)
        assert dialled[unreachable(peers[13])] == 1
        assert dialled.total() == 2


async def test_with_no_neighbours_wanted_nobody_is_dialled_and_the_file_is_deleted(path, jumping):
    memory_network = MemoryNetwork(full_mesh=False)
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(memory_network.open(Identity.generate()))
        write(path, {other.peer_id: other.addresses[0]})
        transport, dialled = await stack.enter_async_context(
            reconnecting(path, memory_network, Identity.generate(), wanted=0)
        )
        await trio.sleep(DAY)
        assert not dialled
        await transport.connect(other.addresses[0])
        await trio.sleep(DAY)
    assert not path.exists()
