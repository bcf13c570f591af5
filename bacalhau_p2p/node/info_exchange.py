"""Node infos on the network: this node announces itself, and records what the others announce."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import trio

from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import Heartbeat, NodeInfoPublished
from bacalhau_p2p.bprotocol.messenger import Messenger
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
        self._leaving = False
        self._observers: list[NodeObserver] = []
        self._changed = AutoResetEvent()
        self._updated = BroadcastEvent()
        messenger.listen([NodeInfoPublished], self._receive)
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
        self._messenger.broadcast(NodeInfoPublished(info=info.replace(leaving=self._leaving)))

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
        info = arrival.message.info
        if info.id != arrival.author:
            self._messenger.drop(arrival.author, "forged_info", "a node info about another node")
            return
        if not self._known_nodes.update(info, self._clock()):
            return
        if info.id != self._transport.peer_id:
            self._transport.learn_addresses(info.id, info.addresses)
        if self._is_acquainted(info.id):
            self._strangers.pop(info.id, None)
            self._seen(info)
        else:
            self._keep_stranger(info.id)
        self._updated.fire()

    def met(self, peer: PeerID) -> None:
        """A node has connected: from now on observers hear of it."""
        if peer in self._strangers and (known := self._known_nodes.get(peer)) is not None:
            del self._strangers[peer]
            self._seen(known.info)

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
