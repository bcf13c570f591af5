"""Whom this node may turn to: nodes it heard of, where they can be dialled, and a few to stay close to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.ipfs.dht.wire import Contact
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.node.known_nodes import KnownNode, KnownNodes
from bacalhau_p2p.node.neighbours import Neighbours
from bacalhau_p2p.transports.interface import Transport

LOOK_EVERY = 5.0
"""Seconds between two looks at how many peers are connected."""
AGAIN_AFTER = 60.0
"""Seconds until a node that could not be reached is tried again."""
REMEMBERED = 4096
"""Peers of whom it is remembered who named their addresses."""


class PeerBook:
    """What the known nodes, the transport and users know of peers, put together.

    Addresses that a node tells of itself, or a user names, count for more than those that others tell of it:
    these are believed only where there is nothing better.
    """

    def __init__(
        self,
        transport: Transport,
        known_nodes: KnownNodes,
        clock: Callable[[], UnixSeconds],
        neighbours: Neighbours,
    ) -> None:
        """`neighbours` are those of earlier lives, and are kept for later ones."""
        self._neighbours = neighbours
        self._transport = transport
        self._known_nodes = known_nodes
        self._clock = clock
        self._named: dict[PeerID, None] = {}
        self._failed: dict[PeerID, float] = {}

    def candidates(self, most: int | None = None) -> list[PeerID]:
        """Peers that may have content: those connected first, then those heard of lately."""
        fresh = [known.info.id for known in self._known_nodes.nodes() if known.is_fresh(self._clock())]
        known = dict.fromkeys([*self._transport.peers, *fresh])
        return [peer for peer in known if peer != self._transport.peer_id][:most]

    def dht_nodes(self) -> list[Contact]:
        """Nodes that say that they serve the DHT, and peers that have not said what they do."""
        nodes, now = self._known_nodes.nodes(), self._clock()
        known = {node.info.id for node in nodes}
        serving = [
            Contact(node.info.id, tuple(node.info.addresses))
            for node in nodes
            if node.info.dht and node.is_fresh(now) and node.info.id != self._transport.peer_id
        ]
        return serving + [Contact(peer) for peer in self._transport.peers if peer not in known]

    def named(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """A user said where this peer can be dialled."""
        if len(self._named) >= REMEMBERED:
            self._named.clear()
        self._named[peer] = None
        self._transport.learn_addresses(peer, addresses)

    def rumoured(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """Another node said where this peer can be dialled."""
        known = (
            peer in self._transport.peers or peer in self._named or self._known_nodes.get(peer) is not None
        )
        if addresses and not known and peer != self._transport.peer_id:
            self._transport.learn_addresses(peer, addresses)

    async def keep_neighbours(self, wanted: int, rng: random.Random) -> None:
        """When no peer is connected any more, dial so many others that were heard of; and when one falls
        silent, find out whether it is there all the same. Until cancelled.

        So a network outlives the node that its members were started with, and grows together again. While
        all is well nobody is dialled: each further connection carries every broadcast once more. With none
        `wanted` nobody is dialled, and nobody kept for a later life.
        """
        if not wanted:
            self._neighbours.forget()
            return
        self._neighbours.load(self._clock())
        try:
            while True:
                await trio.sleep(LOOK_EVERY)
                self._note_neighbours()
                if (data := self._neighbours.due(self._clock())) is not None:
                    await trio.to_thread.run_sync(self._neighbours.write, data)
                others = self._others()
                rng.shuffle(others)
                silent = [node for node in others if not node.is_fresh(self._clock())][:1]
                chosen = [node.info for node in (silent if self._transport.peers else others[:wanted])]
                dialled = {info.id: info.addresses for info in chosen} or self._kept(wanted, rng)
                async with trio.open_nursery() as nursery:
                    for peer, addresses in dialled.items():
                        nursery.start_soon(self._dial, peer, addresses)
        finally:
            self._note_neighbours()
            if (data := self._neighbours.due(self._clock(), last=True)) is not None:
                self._neighbours.write(data)

    def _note_neighbours(self) -> None:
        """Keep in mind who is there, with the addresses that it told itself."""
        now, connected = self._clock(), set(self._transport.peers)
        for node in self._known_nodes.nodes():
            if node.info.id != self._transport.peer_id and (node.is_fresh(now) or node.info.id in connected):
                self._neighbours.saw(node.info.id, node.info.addresses, now, met=node.info.id in connected)
        for peer in connected:
            self._neighbours.saw(peer, (), now, met=True)

    def _kept(self, wanted: int, rng: random.Random) -> dict[PeerID, tuple[str, ...]]:
        """Where to dial so many of those known from earlier on, when nobody is connected; those met first."""
        if self._transport.peers:
            return {}
        recently_failed = {peer for peer in self._failed if not self._may_be_tried(peer)}
        kept = self._neighbours.to_dial(self._clock(), without=recently_failed)
        rng.shuffle(kept)
        kept.sort(key=lambda neighbour: not neighbour.met)
        return {neighbour.id: neighbour.addresses for neighbour in kept[:wanted]}

    def _others(self) -> list[KnownNode]:
        """Nodes that could be dialled now."""
        if len(self._failed) >= REMEMBERED:
            self._failed.clear()
        return [
            node
            for node in self._known_nodes.nodes()
            if node.info.addresses
            and node.info.id != self._transport.peer_id
            and node.info.id not in self._transport.peers
            and self._may_be_tried(node.info.id)
        ]

    def _may_be_tried(self, peer: PeerID) -> bool:
        return self._failed.get(peer, -AGAIN_AFTER) + AGAIN_AFTER <= self._clock()

    async def _dial(self, peer: PeerID, addresses: Sequence[str]) -> None:
        for address in addresses:
            try:
                await self._transport.connect(address)
            except PeerUnreachable:
                continue
            return
        self._failed[peer] = self._clock()
        self._neighbours.failed(peer, self._clock())
