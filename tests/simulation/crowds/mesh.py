"""A large network: broadcasts go from neighbour to neighbour over a mesh, and all that is sent is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from random import Random

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.codec import Envelope
from bacalhau_p2p.bprotocol.messages import Announcement, Message, NodeInfoPublished
from bacalhau_p2p.model.base import PeerID
from tests.simulation.crowds.figures import Figures
from tests.simulation.nodes.network import Network, next_step
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import Plan
from tests.simulation.plans.rng import rng_for

DEGREE = 7
"""Neighbours that a node has in the mesh, more or less: it chooses half of them, and is chosen by others."""
HOP_SECONDS = (0.005, 0.05)
"""What a hop takes at least and at most, most hops being fast."""
SIGNATURE_BYTES = 200
"""What gossip adds to a broadcast: its author, number, signature and topic."""


class MeshNetwork(Network):
    """The faults of a plan concern direct messages; `hop_loss` is the share of hops that broadcasts miss."""

    def __init__(
        self,
        plan: Plan,
        timeline: Timeline,
        figures: Figures,
        *,
        hop_loss: float,
        is_up: Callable[[PeerID], bool],
        knows: Callable[[PeerID, PeerID], bool],
    ) -> None:
        """`knows` says whether a requester hears what a node is."""
        super().__init__(plan, timeline)
        self._figures = figures
        self._hop_loss = hop_loss
        self._is_up = is_up
        self._knows = knows
        self._draw = rng_for(plan.seed, "hops").random
        self._neighbours = _mesh([PeerID(node.name) for node in plan.nodes], rng_for(plan.seed, "mesh"))

    def attach(
        self,
        peer: PeerID,
        receive: Callable[[PeerID, Envelope], None],
        listens_to: Callable[[Message], bool],
    ) -> None:
        def counted(author: PeerID, envelope: Envelope) -> None:
            self._figures.received(envelope.message, self._timeline.now)
            receive(author, envelope)

        super().attach(peer, counted, listens_to)

    def send(self, sender: PeerID, to: PeerID, envelope: Envelope) -> None:
        if isinstance(envelope.message, Announcement):
            self._figures.announced(envelope.message, self._timeline.now)
        self._figures.sent(envelope.message, len(codec.encode_frame(envelope)), self._timeline.now)
        super().send(sender, to, envelope)

    def broadcast(self, sender: PeerID, envelope: Envelope) -> None:
        message = envelope.message
        if isinstance(
            message, NodeInfoPublished
        ):  # these do not depend on jobs, and are not what is measured
            for peer, receiver in self._receivers.items():
                if receiver.listens_to(message) and self._knows(peer, sender):
                    self._send(sender, peer, envelope)
            return
        if isinstance(message, Announcement):
            self._figures.announced(message, self._timeline.now)
        arrivals, hops = self._spread(sender)
        size = len(codec.encode_broadcast([envelope])) + SIGNATURE_BYTES
        self._figures.spread(reached=len(arrivals), hops=hops, size=size)
        for peer, when in arrivals.items():
            receiver = self._receivers[peer]
            if receiver.listens_to(message):
                self._timeline.at(next_step(when), partial(receiver.receive, sender, envelope))

    def _spread(self, author: PeerID) -> tuple[dict[PeerID, float], int]:
        """When each node has a broadcast first, and how often it is received in all."""
        first: dict[PeerID, float] = {author: self._timeline.now}
        heap: list[tuple[float, PeerID, PeerID]] = []
        hops, draw = 0, self._draw
        self._pass_on(author, author, self._timeline.now, heap)
        while heap:
            when, peer, source = heappop(heap)
            if draw() < self._hop_loss or not self._is_up(peer):
                continue
            hops += 1
            if peer not in first:
                first[peer] = when
                self._pass_on(peer, source, when, heap)
        del first[author]
        return first, hops

    def _pass_on(
        self, peer: PeerID, source: PeerID, when: float, heap: list[tuple[float, PeerID, PeerID]]
    ) -> None:
        shortest, longest = HOP_SECONDS
        for neighbour in self._neighbours[peer]:
            if neighbour != source:
                takes = shortest + (longest - shortest) * self._draw() ** 2
                heappush(heap, (when + takes, neighbour, peer))


def _mesh(peers: Sequence[PeerID], rng: Random) -> dict[PeerID, list[PeerID]]:
    """Each node has about `DEGREE` neighbours; a ring among them keeps the mesh in one piece."""
    links: dict[PeerID, set[PeerID]] = {peer: set() for peer in peers}
    order = rng.sample(peers, len(peers))
    for one, other in zip(order, order[1:] + order[:1], strict=True):
        links[one].add(other)
        links[other].add(one)
    for peer in order:
        chosen = rng.sample(peers, min(len(peers), DEGREE))
        for other in chosen:
            if len(links[peer]) < DEGREE and len(links[other]) <= DEGREE and other != peer:
                links[peer].add(other)
                links[other].add(peer)
    return {peer: sorted(links[peer] - {peer}) for peer in peers}
