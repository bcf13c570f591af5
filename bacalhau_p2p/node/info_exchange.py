"""Node infos on the network: this node announces itself, and records what the others announce.

Nodes that connect and do not know each other say who they are. A node tells everybody when it connects to the
first node of the network, when something lasting about it changes, and at intervals.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import Greeting, Heartbeat, NodeInfoPublished
from bacalhau_p2p.bprotocol.messenger import Messenger
from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.node.info_pace import info_interval, next_pause
from bacalhau_p2p.node.known_nodes import KnownNodes
from bacalhau_p2p.runtime.events import AutoResetEvent, BroadcastEvent
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.transports.interface import Transport

log = get_logger(__name__)

MIN_PUBLISH_INTERVAL = 1.0
"""Seconds between any two infos of a node."""
EXPIRY_INTERVAL = 15.0
"""Seconds between two looks at which nodes have become stale."""
FEW_NODES = 5
"""Known others up to which a node says who it is when it hears of a new one: in a small network, a newcomer
knows all at once."""
GREETING_TIMEOUT = 10.0
"""Seconds for telling a peer that has connected who this node is."""
MAX_STRANGERS = 1_000
"""Known nodes that are neither connected nor have ever answered; the one heard of longest ago makes room."""


class NodeObserver(Protocol):
    """A component that follows which nodes are there."""

    def node_seen(self, info: NodeInfo) -> None:
        """A node announced itself."""

    def node_went_stale(self, peer: PeerID) -> None:
        """A node has not announced itself for a while, or says that it is about to stop."""


class NodeInfoExchange:
    """Publishes the info of this node and keeps `known_nodes` up to date."""

    def __init__(
        self,
        messenger: Messenger,
        transport: Transport,
        known_nodes: KnownNodes,
        clock: Callable[[], UnixSeconds],
        is_acquainted: Callable[[PeerID], bool] = lambda peer: True,
        random: Callable[[], float] = lambda: 1.0,
        *,
        network: str = "main",
    ) -> None:
        """`is_acquainted` says whether a peer is connected or has ever answered this node. Observers hear of
        no other nodes, since anybody can invent them. `random`, from 0 to 1, spreads infos over time."""
        self._messenger = messenger
        self._transport = transport
        self._known_nodes = known_nodes
        self._clock = clock
        self._is_acquainted = is_acquainted
        self._strangers: OrderedDict[PeerID, None] = OrderedDict()
        self._random = random
        self._network = network
        self._leaving = False
        self._connected: set[PeerID] = set()
        self._members: set[PeerID] = set()
        """Connected peers that have said who they are."""
        self._greeted: set[PeerID] = set()
        """Connected peers that were told, or will be, who this node is."""
        self._to_greet: set[PeerID] = set()
        self._has_to_greet = AutoResetEvent()
        self._observers: list[NodeObserver] = []
        self._changed = AutoResetEvent()
        self._updated = BroadcastEvent()
        messenger.listen([NodeInfoPublished], self._receive)
        messenger.listen([Greeting], self._receive_greeting)
        messenger.listen([Heartbeat], self._receive_heartbeat)

    @property
    def interval(self) -> float:
        """Seconds from one info of this node to the next at most."""
        return info_interval(self._known_nodes.count)

    def observe(self, observer: NodeObserver) -> None:
        """Report to this component, from now on."""
        self._observers.append(observer)

    def publish_soon(self) -> None:
        """Something lasting about this node has changed: publish its info soon, but not more often than once
        a second."""
        self._changed.set()

    def leave(self, info: NodeInfo) -> None:
        """Tell everybody now that this node is about to stop."""
        self._leaving = True
        self._publish(info)

    async def publish(self, info: Callable[[], NodeInfo]) -> None:
        """Publish what `info` returns, now, after each change and at intervals. Until cancelled."""
        while True:
            if self._changed.is_set():
                await self._changed.wait()
            published = info()
            self._publish(published)
            await trio.sleep(MIN_PUBLISH_INTERVAL)
            with trio.move_on_after(next_pause(published.interval, self._random()) - MIN_PUBLISH_INTERVAL):
                await self._changed.wait()

    def _publish(self, info: NodeInfo) -> None:
        message = NodeInfoPublished(info=info.replace(leaving=self._leaving))
        if self._connected:
            self._messenger.broadcast(message)
        else:
            self._messenger.deliver_here(message)

    async def greet(self, info: Callable[[], NodeInfo]) -> None:
        """Tell each peer that connects what `info` returns. Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._has_to_greet.wait()
                while self._to_greet:
                    nursery.start_soon(self._greet, self._to_greet.pop(), info())

    async def _greet(self, peer: PeerID, info: NodeInfo) -> None:
        greeting = Greeting(info=info.replace(leaving=self._leaving), network=self._network)
        with suppress(PeerUnreachable), trio.move_on_after(GREETING_TIMEOUT):
            await self._messenger.send_directly(peer, greeting)

    async def expire_known_nodes(self) -> None:
        """Report nodes that no longer announce themselves. Until cancelled."""
        while True:
            await trio.sleep(EXPIRY_INTERVAL)
            for peer in self._known_nodes.expire(self._clock()):
                self._went_stale(peer)

    def _went_stale(self, peer: PeerID) -> None:
        log.info("node_stale", peer=peer)
        for observer in self._observers:
            observer.node_went_stale(peer)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Returns once the condition holds. It is checked now, and after each info that arrives."""
        while not condition():
            await self._updated.wait()

    def _receive(self, arrival: Arrival) -> None:
        assert isinstance(arrival.message, NodeInfoPublished)
        is_new = self._known_nodes.get(arrival.author) is None
        self._learn(arrival.author, arrival.message.info)
        if is_new and arrival.author != self._transport.peer_id and self._known_nodes.count <= FEW_NODES + 1:
            self.publish_soon()

    def _receive_greeting(self, arrival: Arrival) -> None:
        assert isinstance(arrival.message, Greeting)
        if arrival.message.network == self._network and arrival.author in self._connected:
            self._learn(arrival.author, arrival.message.info)
            self._greet_soon(arrival.author)

    def _learn(self, author: PeerID, info: NodeInfo) -> None:
        """Record what a node says of itself, and tell the observers."""
        if info.id != author:
            self._messenger.drop(author, "forged_info", "a node info about another node")
            return
        if not self._known_nodes.update(info, self._clock()):
            return
        if info.id in self._connected:
            self._add_member(info.id)
        if info.id != self._transport.peer_id:
            self._transport.learn_addresses(info.id, info.addresses)
        if self._is_acquainted(info.id):
            self._strangers.pop(info.id, None)
            self._seen(info)
        else:
            self._keep_stranger(info.id)
        self._updated.fire()

    def met(self, peer: PeerID) -> None:
        """A peer has connected: unless it is known, it is told who this node is, and will answer. From now on
        observers hear of it."""
        self._connected.add(peer)
        known = self._known_nodes.get(peer)
        if known is None or not known.is_fresh(self._clock()):
            self._greet_soon(peer)
        else:
            self._add_member(peer)
        if peer in self._strangers and (known := self._known_nodes.get(peer)) is not None:
            del self._strangers[peer]
            self._seen(known.info)

    def left(self, peer: PeerID) -> None:
        """A peer is no longer connected."""
        self._connected.discard(peer)
        self._members.discard(peer)
        self._greeted.discard(peer)
        self._to_greet.discard(peer)

    def _greet_soon(self, peer: PeerID) -> None:
        if peer not in self._greeted:
            self._greeted.add(peer)
            self._to_greet.add(peer)
            self._has_to_greet.set()

    def _add_member(self, peer: PeerID) -> None:
        """A connected peer is a node of this network. With the first one, everybody can hear of this node."""
        if not self._members:
            self.publish_soon()
        self._members.add(peer)

    def _seen(self, info: NodeInfo) -> None:
        if info.leaving:
            self._went_stale(info.id)
            return
        for observer in self._observers:
            observer.node_seen(info)

    def _keep_stranger(self, peer: PeerID) -> None:
        self._strangers[peer] = None
        self._strangers.move_to_end(peer)
        if len(self._strangers) > MAX_STRANGERS:
            oldest, _ = self._strangers.popitem(last=False)
            self._known_nodes.forget(oldest)

    def _receive_heartbeat(self, arrival: Arrival) -> None:
        assert isinstance(arrival.message, Heartbeat)
        if arrival.message.load is not None:
            self._known_nodes.update_load(arrival.author, arrival.message.load, self._clock())
