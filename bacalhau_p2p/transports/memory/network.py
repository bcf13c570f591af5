"""A whole network in one process: any number of transports, and links with adjustable conditions.

It runs on trio's clock, so under an autojump clock hours pass in milliseconds, and takes all randomness from
one `Random`, so a seed repeats a run. Without conditions everything arrives at once and in order.

    network = MemoryNetwork(random=Random(7))
    async with network.open(alice) as a, network.open(bob) as b:
        network.set_conditions(LinkConditions(loss=0.2, delay=0.05))
        network.partition([a.peer_id], [b.peer_id])
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from random import Random

import trio

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.tasks import background
from bacalhau_p2p.transports.arrivals import Arrivals
from bacalhau_p2p.transports.budgets import Budgets
from bacalhau_p2p.transports.memory.connections import Connections
from bacalhau_p2p.transports.memory.endpoint import Endpoint
from bacalhau_p2p.transports.memory.links import PERFECT, LinkConditions, Links
from bacalhau_p2p.transports.memory.transport import MemoryTransport


class MemoryNetwork:
    """The network between its transports.

    With `full_mesh` every transport is connected to every other as soon as it is opened, and again
    `redial_after` seconds after a cut between them has healed. Without, transports dial by address.
    A connection over a cut link is lost `notice_after` seconds after the cut, when a health check would fail;
    what is sent over it until then is lost. `random` decides what is lost, late or repeated.
    `incoming_size` is the number of arrivals of one peer that may wait in `incoming` of each transport.
    Processor time counts nothing here, so that runs can be repeated.
    """

    def __init__(
        self,
        *,
        random: Random | None = None,
        conditions: LinkConditions = PERFECT,
        full_mesh: bool = True,
        notice_after: float = 5.0,
        redial_after: float = 2.0,
        incoming_size: int = 1024,
    ) -> None:
        self._links = Links(random or Random(0), conditions)  # noqa: S311 - not for secrets
        self._connections = Connections(
            self._links, full_mesh=full_mesh, notice_after=notice_after, redial_after=redial_after
        )
        self._incoming_size = incoming_size
        self._ports = itertools.count(1)

    @asynccontextmanager
    async def open(self, who: PeerID | Identity) -> AsyncIterator[MemoryTransport]:
        """A transport of this peer for the length of the block. A peer may be opened again later.

        On exit its handlers are cancelled and the other peers are disconnected. ValueError when the peer is
        open already.
        """
        peer = who.peer_id if isinstance(who, Identity) else who
        if self._connections.endpoint(peer) is not None:
            raise ValueError(f"peer {peer} is open already")
        address = f"/memory/{next(self._ports)}/p2p/{peer}"
        budgets = Budgets(
            trio.current_time,
            is_connected=partial(self._connections.are_connected, peer),
            cut_off=partial(self._connections.refuse, peer),
            processor=lambda: 0.0,
        )
        arrivals = Arrivals(budgets, self._incoming_size)
        async with background() as nursery:
            endpoint = Endpoint(peer, address, self._links, nursery, budgets=budgets, arrivals=arrivals)
            self._connections.add(endpoint)
            try:
                yield MemoryTransport(endpoint, self._connections, arrivals)
            finally:
                self._connections.remove(endpoint)
                arrivals.close()

    def set_conditions(
        self,
        conditions: LinkConditions,
        *,
        source: PeerID | None = None,
        target: PeerID | None = None,
    ) -> None:
        """Set the conditions of all links, or of the one from `source` to `target` (one way)."""
        self._links.set_conditions(conditions, source, target)

    def cut(self, source: PeerID, target: PeerID, *, one_way: bool = False) -> None:
        """Let nothing pass from `source` to `target`, nor back unless `one_way`, until it is healed.

        The connection between them is lost soon, even when one way is open: acknowledgements are missing.
        """
        self._links.cut(source, target)
        if not one_way:
            self._links.cut(target, source)
        self._connections.link_cut(source, target)

    def partition(self, *groups: Collection[PeerID], one_way: bool = False) -> None:
        """Cut every link between peers of different groups; `one_way`: only from earlier to later groups."""
        for one, other in itertools.combinations(groups, 2):
            for source, target in itertools.product(one, other):
                self.cut(source, target, one_way=one_way)

    def heal(self, source: PeerID | None = None, target: PeerID | None = None) -> None:
        """Undo every cut, or both directions between these two."""
        for ends in self._links.heal(source, target):
            self._connections.link_healed(ends)

    def is_cut(self, source: PeerID, target: PeerID) -> bool:
        """Whether nothing passes from `source` to `target`."""
        return self._links.is_cut(source, target)
