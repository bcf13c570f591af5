"""Tells others what a simulated node is and has, as the real exchange of node infos does."""

from __future__ import annotations

from collections.abc import Callable

from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import Greeting, NodeInfoPublished
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.node.info_exchange import FEW_NODES, MIN_PUBLISH_INTERVAL
from bacalhau_p2p.node.info_pace import next_pause
from bacalhau_p2p.node.known_nodes import KnownNodes
from tests.simulation.nodes.messaging import Messaging
from tests.simulation.nodes.process import Process

NETWORK = "simulated"


class InfoPublisher:
    """Greets peers that connect and are not known. Tells everybody at intervals, and soon after the first
    connection to a node."""

    def __init__(
        self,
        process: Process,
        messaging: Messaging,
        known_nodes: KnownNodes,
        info: Callable[[], NodeInfo],
        random: Callable[[], float],
    ) -> None:
        self._process = process
        self._messaging = messaging
        self._known_nodes = known_nodes
        self._info = info
        self._random = random
        self._published_at = 0.0
        self._version = 0
        """Counts what was scheduled: only the latest is carried out."""
        self._members: set[PeerID] = set()
        self._greeted: set[PeerID] = set()

    def begin(self) -> None:
        """Nobody is connected yet: this node alone hears of itself."""
        self._messaging.deliver_here(NodeInfoPublished(info=self._info()))
        self._schedule_next()

    def publish(self) -> None:
        self._published_at = self._process.timeline.now
        self._messaging.broadcast(NodeInfoPublished(info=self._info()))
        self._schedule_next()

    # --- peers ----------------------------------------------------------------------------------

    def met(self, peer: PeerID) -> None:
        """A peer has connected."""
        known = self._known_nodes.get(peer)
        if known is not None and known.is_fresh(self._process.clock()):
            self._add_member(peer)
        else:
            self._greet(peer)

    def left(self, peer: PeerID) -> None:
        """A peer is no longer connected."""
        self._members.discard(peer)
        self._greeted.discard(peer)

    def learn(self, arrival: Arrival) -> bool:
        """Take in what a node says of itself, and answer it if that is due. False if it is not new."""
        message, author = arrival.message, arrival.author
        assert isinstance(message, NodeInfoPublished | Greeting)
        is_new = self._known_nodes.get(author) is None
        if message.info.id != author or not self._known_nodes.update(message.info, self._process.clock()):
            return False
        if isinstance(message, Greeting):  # one that came before this node noticed the connection counts
            self._add_member(author)
            self._greet(author)
        elif is_new and author != self._process.peer and self._known_nodes.count <= FEW_NODES + 1:
            self._publish_soon()
        return True

    def _greet(self, peer: PeerID) -> None:
        if peer not in self._greeted:
            self._greeted.add(peer)
            self._messaging.send_once(peer, Greeting(info=self._info(), network=NETWORK))

    def _add_member(self, peer: PeerID) -> None:
        if not self._members:
            self._publish_soon()
        self._members.add(peer)

    # --- time -----------------------------------------------------------------------------------

    def _publish_soon(self) -> None:
        """But no more than once a second."""
        self._schedule(max(self._process.timeline.now, self._published_at + MIN_PUBLISH_INTERVAL))

    def _schedule_next(self) -> None:
        self._schedule(self._process.timeline.now + next_pause(self._info().interval, self._random()))

    def _schedule(self, when: float) -> None:
        self._version += 1
        version = self._version
        self._process.at(when, lambda: self.publish() if version == self._version else None)
