"""Whom this node may turn to: nodes it heard of, where they can be dialled, and a few to stay close to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import trio

from bacalhau_p2p.dht.wire import Contact
from bacalhau_p2p.directory import Directory, KnownNode
from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.transports.interface import Transport

LOOK_EVERY = 5.0
"""Seconds between two looks at how many peers are connected."""
AGAIN_AFTER = 60.0
"""Seconds until a node that could not be reached is tried again."""
REMEMBERED = 4096
"""Peers of whom it is remembered who named their addresses."""


class Acquaintances:
    """What the directory, the transport and users know of peers, put together.

    Addresses that a node tells of itself, or a user names, count for more than those that others tell of it:
    these are believed only where there is nothing better.
    """

    def __init__(self, transport: Transport, directory: Directory, clock: Callable[[], UnixSeconds]) -> None:
        self._transport = transport
        self._directory = directory
        self._clock = clock
        self._named: dict[PeerID, None] = {}
        self._failed: dict[PeerID, float] = {}

    def candidates(self, most: int | None = None) -> list[PeerID]:
        """Peers that may have content: those connected first, then those heard of lately."""
        fresh = [known.info.id for known in self._directory.nodes() if known.fresh(self._clock())]
        known = dict.fromkeys([*self._transport.peers, *fresh])
        return [peer for peer in known if peer != self._transport.peer_id][:most]

    def dht_nodes(self) -> list[Contact]:
        """Nodes that say that they serve the DHT, and peers that have not said what they do."""
        nodes, now = self._directory.nodes(), self._clock()
        known = {node.info.id for node in nodes}
        serving = [
            Contact(node.info.id, tuple(node.info.addresses))
            for node in nodes
            if node.info.dht and node.fresh(now) and node.info.id != self._transport.peer_id
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
        known = peer in self._transport.peers or peer in self._named or self._directory.get(peer) is not None
        if addresses and not known and peer != self._transport.peer_id:
            self._transport.learn_addresses(peer, addresses)

    async def keep_neighbours(self, wanted: int, chance: random.Random) -> None:
        """When no peer is connected any more, dial so many others that were heard of; and when one falls
        silent, find out whether it is there all the same. Until cancelled.

        So a network outlives the node that its members were started with, and grows together again. While
        all is well nobody is dialled: each further connection carries every broadcast once more.
        """
        while wanted:
            await trio.sleep(LOOK_EVERY)
            others = self._others()
            chance.shuffle(others)
            silent = [node for node in others if not node.fresh(self._clock())][:1]
            for node in silent if self._transport.peers else others[:wanted]:
                if not await self._connected(node.info.addresses):
                    self._failed[node.info.id] = self._clock()

    def _others(self) -> list[KnownNode]:
        """Nodes that could be dialled now."""
        now = self._clock()
        if len(self._failed) >= REMEMBERED:
            self._failed.clear()
        return [
            node
            for node in self._directory.nodes()
            if node.info.addresses
            and node.info.id != self._transport.peer_id
            and node.info.id not in self._transport.peers
            and self._failed.get(node.info.id, -AGAIN_AFTER) + AGAIN_AFTER <= now
        ]

    async def _connected(self, addresses: Sequence[str]) -> bool:
        for address in addresses:
            try:
                await self._transport.connect(address)
            except PeerUnreachable:
                continue
            return True
        return False
