"""Nodes of a DHT over a network in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.dht.peerstore import Peerstore
from bacalhau_p2p.ipfs.dht.service import Dht
from bacalhau_p2p.ipfs.dht.wire import Contact
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.interface import Transport
from bacalhau_p2p.transports.memory.network import MemoryNetwork

PROTOCOL = "/bacalhau/test/kad/1.0.0"


def identity(number: int) -> Identity:
    return Identity.generate(number.to_bytes(32))


def cid(number: int) -> CID:
    return CID.of(RAW, b"%d" % number)


class DhtNet:
    """The nodes of one test. At the start a node knows only the peers that it is connected to."""

    def __init__(self, nursery: trio.Nursery, *, lookup_each_key: bool) -> None:
        self.nodes: list[Dht] = []
        self.transports: list[Transport] = []
        self.addresses: dict[PeerID, tuple[str, ...]] = {}
        self.roots: list[set[CID]] = []
        self.learned: list[dict[PeerID, Sequence[str]]] = []
        self._nursery = nursery
        self._lookup_each_key = lookup_each_key

    def add(self, transport: Transport, *, serve: bool) -> None:
        """Start a node that announces what is in its entry of `roots`."""
        number = len(self.nodes)
        self.transports.append(transport)
        self.addresses[transport.peer_id] = tuple(transport.addresses)
        self.roots.append(set())
        self.learned.append({})
        self.nodes.append(self._dht(number))
        if serve:
            transport.handle_streams(PROTOCOL, self.nodes[number].serve)

        async def roots() -> set[CID]:
            return self.roots[number]

        self._nursery.start_soon(self.nodes[number].run, roots)

    def _dht(self, number: int) -> Dht:
        transport = self.transports[number]

        def add_addresses(peer: PeerID, addresses: Sequence[str]) -> None:
            self.learned[number][peer] = addresses
            if peer not in transport.peers:
                transport.learn_addresses(peer, addresses)

        peerstore = Peerstore(
            bootstrap=lambda: [Contact(peer, self.addresses[peer]) for peer in transport.peers],
            add_addresses=add_addresses,
            own_addresses=lambda: transport.addresses,
            connected=lambda: transport.peers,
        )
        return Dht(
            transport.peer_id,
            PROTOCOL,
            transport.open_stream,
            peerstore,
            clock=trio.current_time,
            lookup_each_key=self._lookup_each_key,
        )

    def restart(self, number: int) -> None:
        """Replace a node that announces nothing by a new one, which has no records."""
        self.nodes[number] = self._dht(number)
        self.transports[number].handle_streams(PROTOCOL, self.nodes[number].serve)

    async def connect(self, one: int, other: int) -> None:
        await self.transports[one].connect(self.transports[other].addresses[0])

    async def provide(self, number: int, what: CID) -> None:
        """Pin and announce a root; returns when other nodes were told."""
        node = self.nodes[number]
        before = node.counters["keys_provided"]
        self.roots[number].add(what)
        node.provide(what)
        await until(lambda: node.counters["keys_provided"] > before)

    async def find(self, number: int, what: CID) -> tuple[set[PeerID], str]:
        """The providers that a node finds, and what it asked."""
        found: set[PeerID] = set()
        asked = await self.nodes[number].find_providers(what, found.add)
        return found, asked

    async def converse(self, data: bytes) -> bytes:
        """What node 0 answers when node 1 sends these bytes on a stream."""
        stream = await self.transports[1].open_stream(self.transports[0].peer_id, PROTOCOL)
        received = b""
        async with stream:
            try:
                await stream.send_all(data)
                await stream.send_eof()
                while piece := await stream.receive_some():
                    received += piece
            except trio.BrokenResourceError:
                pass
        return received


async def until(condition: Callable[[], object]) -> None:
    """Returns when the condition holds. For tests whose clock jumps."""
    with trio.fail_after(3600):
        while not condition():  # noqa: ASYNC110 - the clock jumps
            await trio.sleep(0.1)


@asynccontextmanager
async def opened(
    count: int, links: Sequence[tuple[int, int]], *, clients: int = 0, lookup_each_key: bool = False
) -> AsyncIterator[DhtNet]:
    """So many nodes, connected by these links; the last `clients` of them answer no requests."""
    async with AsyncExitStack() as stack:
        network = MemoryNetwork(full_mesh=False)
        transports = [
            await stack.enter_async_context(network.open(identity(number))) for number in range(count)
        ]
        nursery = await stack.enter_async_context(trio.open_nursery())
        net = DhtNet(nursery, lookup_each_key=lookup_each_key)
        for number, transport in enumerate(transports):
            net.add(transport, serve=number < count - clients)
        for one, other in links:
            await net.connect(one, other)
        yield net
        nursery.cancel_scope.cancel()
