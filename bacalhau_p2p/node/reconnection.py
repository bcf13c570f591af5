"""Connects a node to others when it has lost all of its peers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.node.known_nodes import KnownNode, KnownNodes
from bacalhau_p2p.node.neighbours import RETRY_AFTER, Neighbours
from bacalhau_p2p.node.neighbours_file import NeighboursFile
from bacalhau_p2p.runtime.threads import Threads
from bacalhau_p2p.transports.interface import Transport

CHECK_INTERVAL = 5.0
"""Seconds between two checks whether any peer is connected."""
MAX_FAILURES = 4096
"""Unreachable peers that are remembered."""


class Reconnector:
    """Dials nodes when no peer is connected, and one stale node at a time to see whether it is still there.

    So the network outlives the node that its members were started with, and heals after a split. While a peer
    is connected no other fresh node is dialled: each connection carries every broadcast once more.
    """

    def __init__(
        self,
        transport: Transport,
        known_nodes: KnownNodes,
        file: NeighboursFile,
        *,
        wanted: int,
        clock: Callable[[], UnixSeconds],
        rng: random.Random,
    ) -> None:
        """`wanted` is how many nodes to dial at once. With 0 none is dialled, and `file` is deleted."""
        self._transport = transport
        self._known_nodes = known_nodes
        self._file = file
        self._wanted = wanted
        self._clock = clock
        self._rng = rng
        self._neighbours = Neighbours()
        self._failed_at: dict[PeerID, UnixSeconds] = {}
        self._threads = Threads(1)

    async def run(self) -> None:
        """Until cancelled. The neighbours are written to the file at intervals and at the end."""
        if not self._wanted:
            self._file.delete()
            return
        self._neighbours.restore(self._file.read(), self._clock())
        try:
            while True:
                await trio.sleep(CHECK_INTERVAL)
                self._record_present()
                if (entries := self._neighbours.entries_to_write(self._clock())) is not None:
                    await self._threads.run(self._file.write, entries)
                async with trio.open_nursery() as nursery:
                    for peer, addresses in self._to_dial().items():
                        nursery.start_soon(self._dial, peer, addresses)
        finally:
            self._record_present()
            if (entries := self._neighbours.entries_to_write(self._clock(), last=True)) is not None:
                self._file.write(entries)

    def _record_present(self) -> None:
        """Record who is connected or announces itself, with the addresses that it gave itself."""
        now, connected = self._clock(), set(self._transport.peers)
        for node in self._known_nodes.nodes():
            peer = node.info.id
            if peer != self._transport.peer_id and (node.is_fresh(now) or peer in connected):
                self._neighbours.record(peer, node.info.addresses, now, met=peer in connected)
        for peer in connected:
            self._neighbours.record(peer, (), now, met=True)

    def _to_dial(self) -> dict[PeerID, Sequence[str]]:
        """Peers to dial now, with their addresses."""
        nodes = self._disconnected_nodes()
        self._rng.shuffle(nodes)
        if self._transport.peers:
            nodes = [node for node in nodes if not node.is_fresh(self._clock())][:1]
        chosen: dict[PeerID, Sequence[str]] = {n.info.id: n.info.addresses for n in nodes[: self._wanted]}
        return chosen or self._neighbours_to_dial()

    def _disconnected_nodes(self) -> list[KnownNode]:
        """Known nodes that are not connected and may be dialled now."""
        if len(self._failed_at) >= MAX_FAILURES:
            self._failed_at.clear()
        return [
            node
            for node in self._known_nodes.nodes()
            if node.info.addresses
            and node.info.id != self._transport.peer_id
            and node.info.id not in self._transport.peers
            and self._may_be_dialled(node.info.id)
        ]

    def _neighbours_to_dial(self) -> dict[PeerID, Sequence[str]]:
        """Neighbours to dial when nobody is connected: first those that there was a connection to."""
        if self._transport.peers:
            return {}
        recently_failed = {peer for peer in self._failed_at if not self._may_be_dialled(peer)}
        neighbours = self._neighbours.to_dial(self._clock(), without=recently_failed)
        self._rng.shuffle(neighbours)
        neighbours.sort(key=lambda neighbour: not neighbour.met)
        return {neighbour.id: neighbour.addresses for neighbour in neighbours[: self._wanted]}

    def _may_be_dialled(self, peer: PeerID) -> bool:
        return self._failed_at.get(peer, -RETRY_AFTER) + RETRY_AFTER <= self._clock()

    async def _dial(self, peer: PeerID, addresses: Sequence[str]) -> None:
        for address in addresses:
            try:
                await self._transport.connect(address)
            except PeerUnreachable:
                continue
            return
        self._failed_at[peer] = self._clock()
        self._neighbours.record_failure(peer, self._clock())
