"""When a node dials others, whom, and which connections it closes."""

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
from bacalhau_p2p.node import connection_keeper, neighbours
from bacalhau_p2p.node.connection_keeper import CHECK_INTERVAL, MAX_DIALS, MAX_FOUND, ConnectionKeeper
from bacalhau_p2p.node.connection_plan import GRACE, HIGH_WATER
from bacalhau_p2p.node.known_nodes import KnownNode, KnownNodes
from bacalhau_p2p.node.neighbours import MAX_RETRY_INTERVAL
from bacalhau_p2p.node.neighbours_file import NeighboursFile
from bacalhau_p2p.runtime.threads import Threads
from bacalhau_p2p.transports.memory.network import MemoryNetwork

DAY = 24 * 3600.0


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "neighbours.json"


@asynccontextmanager
async def kept(
    path: Path,
    memory_network: MemoryNetwork,
    identity: Identity,
    wanted: int = 4,
    known_nodes: KnownNodes | None = None,
):
    """Run a keeper; yields its transport, and a count of the addresses that it dials."""
    async with run_keeper(path, memory_network, identity, wanted, known_nodes) as (transport, dialled, _):
        yield transport, dialled


@asynccontextmanager
async def run_keeper(
    path: Path,
    memory_network: MemoryNetwork,
    identity: Identity,
    wanted: int = 4,
    known_nodes: KnownNodes | None = None,
):
    """The same, with the keeper."""
    async with memory_network.open(identity) as transport, trio.open_nursery() as nursery:
        dialled: Counter[str] = Counter()
        connect = transport.connect

        async def counted(address: str) -> PeerID:
            dialled[address] += 1
            return await connect(address)

        transport.connect = counted
        keeper = ConnectionKeeper(
            transport,
            known_nodes or KnownNodes(),
            NeighboursFile(path),
            wanted=wanted,
            clock=trio.current_time,
            rng=random.Random(1),
        )
        nursery.start_soon(keeper.run)
        yield transport, dialled, keeper
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
        transport, dialled = await stack.enter_async_context(kept(path, memory_network, Identity.generate()))
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
        kept(path, memory_network, Identity.generate(), known_nodes=known_nodes) as (transport, _),
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


async def test_a_peer_that_closes_connections_does_not_keep_others_from_being_dialled(path, jumping):
    memory_network, known_nodes = MemoryNetwork(full_mesh=False), KnownNodes()
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(memory_network.open(Identity.generate())) for _ in range(5)]
        good, *rude = opened
        for other in opened:
            info = NodeInfo(id=other.peer_id, addresses=tuple(other.addresses), interval=DAY)
            known_nodes.update(info, trio.current_time())
        own = Identity.generate()
        keeping = kept(path, memory_network, own, wanted=1, known_nodes=known_nodes)
        transport, dialled = await stack.enter_async_context(keeping)
        with trio.move_on_after(10 * CHECK_INTERVAL):
            while good.peer_id not in transport.peers:
                await trio.sleep(0.1)
                for other in rude:
                    await other.disconnect(transport.peer_id)
        assert list(transport.peers) == [good.peer_id]
        assert set(dialled.values()) == {1}


async def test_unreachable_neighbours_are_dialled_less_and_less_often_and_then_forgotten(
    path, jumping, monkeypatch
):
    monkeypatch.setattr(neighbours, "FORGET_AFTER", 2 * DAY)
    monkeypatch.setattr(connection_keeper, "CHECK_INTERVAL", 30.0)
    away = Identity.generate().peer_id
    write(path, {away: (at := unreachable(away))})
    async with kept(path, MemoryNetwork(full_mesh=False), Identity.generate()) as (_, dialled):
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
    async with kept(path, MemoryNetwork(full_mesh=False), Identity.generate(), wanted=2) as (
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
            kept(path, memory_network, Identity.generate(), wanted=0)
        )
        await trio.sleep(DAY)
        assert not dialled
        await transport.connect(other.addresses[0])
        await trio.sleep(DAY)
    assert not path.exists()


async def test_a_node_on_the_local_network_is_dialled_at_once(path, jumping):
    memory_network = MemoryNetwork(full_mesh=False)
    async with (
        memory_network.open(Identity.generate()) as other,
        run_keeper(path, memory_network, Identity.generate()) as (transport, _, keeper),
    ):
        keeper.found_nearby(other.peer_id, other.addresses)
        await trio.sleep(1)
        assert list(transport.peers) == [other.peer_id]


async def test_an_unknown_node_on_the_local_network_is_dialled_also_with_enough_connections(path, jumping):
    memory_network, known_nodes = MemoryNetwork(full_mesh=False), KnownNodes()
    async with (
        memory_network.open(Identity.generate()) as known,
        memory_network.open(Identity.generate()) as other,
        memory_network.open(Identity.generate()) as unknown,
        run_keeper(path, memory_network, Identity.generate(), 1, known_nodes) as (transport, _, keeper),
    ):
        for node in (known, other):
            info = NodeInfo(id=node.peer_id, addresses=tuple(node.addresses))
            known_nodes.update(info, trio.current_time())
        await transport.connect(known.addresses[0])
        await trio.sleep(2 * CHECK_INTERVAL)
        for node in (other, unknown):
            keeper.found_nearby(node.peer_id, node.addresses)
        await trio.sleep(2 * CHECK_INTERVAL)
        assert set(transport.peers) == {known.peer_id, unknown.peer_id}


async def test_invented_peers_on_the_local_network_are_dialled_a_few_at_a_time_and_forgotten(path, jumping):
    async with run_keeper(path, MemoryNetwork(full_mesh=False), Identity.generate()) as (_, dialled, keeper):
        for _ in range(3 * MAX_FOUND):
            peer = Identity.generate().peer_id
            keeper.found_nearby(peer, [unreachable(peer)])
        await trio.sleep(CHECK_INTERVAL)
        assert 0 < dialled.total() <= 3 * MAX_DIALS
        await trio.sleep(600)
        assert dialled.total() == MAX_FOUND


@asynccontextmanager
async def network_of_keepers(tmp_path: Path, count: int, wanted: int = 4, knows_all=lambda number: True):
    """Transports with a keeper each; all but the first dial only the first. Those for which `knows_all` know
    all nodes."""
    memory_network, opened = MemoryNetwork(full_mesh=False), []
    async with AsyncExitStack() as stack:
        books = []
        for number in range(count):
            transport = await stack.enter_async_context(memory_network.open(Identity.generate()))
            books.append(KnownNodes())
            keeper = ConnectionKeeper(
                transport,
                books[-1],
                NeighboursFile(tmp_path / f"{number}.json"),
                wanted=wanted,
                clock=trio.current_time,
                rng=random.Random(number),
            )
            opened.append((transport, keeper))
        for number, book in enumerate(books):
            for transport, _ in opened if knows_all(number) else ():
                info = NodeInfo(id=transport.peer_id, addresses=tuple(transport.addresses))
                book.update(info, trio.current_time())
        nursery = await stack.enter_async_context(trio.open_nursery())
        hub = opened[0][0].addresses[0]
        for transport, keeper in opened:
            nursery.start_soon(keeper.run)
            if transport is not opened[0][0]:
                await transport.connect(hub)
        yield opened
        nursery.cancel_scope.cancel()


def is_connected(links: dict[PeerID, set[PeerID]], without: PeerID) -> bool:
    """Whether all peers but one reach each other."""
    start = next(peer for peer in links if peer != without)
    reached, border = {start}, [start]
    while border:
        new = links[border.pop()] - reached - {without}
        reached |= new
        border += new
    return len(reached) == len(links) - 1


async def test_100_nodes_that_dialled_one_stay_connected_whichever_ends_and_none_has_too_many(
    tmp_path, jumping, monkeypatch
):
    monkeypatch.setattr(KnownNode, "is_fresh", lambda self, now: True)
    async with network_of_keepers(tmp_path, 100) as opened:
        await trio.sleep(20 * CHECK_INTERVAL)
        links = {transport.peer_id: set(transport.peers) for transport, _ in opened}
        sizes = [len(peers) for peers in links.values()]
        assert max(sizes) <= HIGH_WATER
        assert min(sizes) >= 4
        assert sum(sizes) / 100 < 16
        assert [peer for peer in links if not is_connected(links, without=peer)] == []


async def test_a_newcomer_that_knows_nobody_asks_its_only_peer_and_finds_others(
    tmp_path, jumping, monkeypatch
):
    monkeypatch.setattr(KnownNode, "is_fresh", lambda self, now: True)
    async with network_of_keepers(tmp_path, 12, knows_all=lambda number: number == 0) as opened:
        await trio.sleep(4 * CHECK_INTERVAL)
        assert min(len(transport.peers) for transport, _ in opened) >= 4


async def test_no_connection_is_closed_with_work_under_way_or_a_transfer_or_that_is_new(
    tmp_path, jumping, monkeypatch
):
    memory_network, echo = MemoryNetwork(full_mesh=False), trio.Event()

    async def hold(peer: PeerID, stream: trio.abc.HalfCloseableStream) -> None:
        await echo.wait()

    async with AsyncExitStack() as stack:
        others = [
            await stack.enter_async_context(memory_network.open(Identity.generate()))
            for _ in range(HIGH_WATER + 20)
        ]
        transport = await stack.enter_async_context(memory_network.open(Identity.generate()))
        keeper = ConnectionKeeper(
            transport,
            KnownNodes(),
            NeighboursFile(tmp_path / "neighbours.json"),
            wanted=4,
            clock=trio.current_time,
            rng=random.Random(1),
        )
        working = {other.peer_id for other in others[:5]}
        keeper.protect(lambda: working)
        transport.handle_streams("/hold", hold)
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(keeper.run)
        for other in others:
            await other.connect(transport.addresses[0])
        for other in others[5:10]:
            await other.open_stream(transport.peer_id, "/hold")
        await trio.sleep(GRACE / 2)
        assert len(transport.peers) == HIGH_WATER + 20
        await trio.sleep(2 * GRACE)
        assert len(transport.peers) == HIGH_WATER
        assert {other.peer_id for other in others[:10]} <= set(transport.peers)
        nursery.cancel_scope.cancel()
