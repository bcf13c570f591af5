"""Our gossip without libp2p: nodes whose streams are lists, with a delay, on a clock that jumps."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.budgets import Budgets
from bacalhau_p2p.transports.interface import Broadcast
from bacalhau_p2p.transports.libp2p.direct.frames import FrameReader
from bacalhau_p2p.transports.libp2p.gossip import pubsub
from bacalhau_p2p.transports.libp2p.gossip.neighbour import Neighbour
from bacalhau_p2p.transports.libp2p.gossip.pubsub import Gossip
from bacalhau_p2p.transports.libp2p.gossip.wire import FLOODSUB, GOSSIPSUB_12

TOPIC = "jobs"
FASTEST, SLOWEST = 0.001, 0.005
"""Seconds that what one node writes takes to another; each pair has a delay of its own."""
BANDWIDTH = 10_000_000
"""Bytes a second of each link."""


class _Streams:
    """Replaces GossipStreams: the same interface, with neighbours that `GossipNet` connects."""

    def __init__(self, host: Any, nursery: trio.Nursery, **callbacks: Any) -> None:
        self.callbacks = callbacks
        self.unflushed: list[Neighbour] = []
        self.neighbours: dict[PeerID, Neighbour] = {}
        self.connected = self.connection_lost = None

    def get(self, peer: PeerID) -> Neighbour | None:
        return self.neighbours.get(peer)

    @property
    def all(self) -> list[Neighbour]:
        return list(self.neighbours.values())

    @property
    def open(self) -> list[Neighbour]:
        return self.all

    @property
    def without_gossipsub(self) -> list[Neighbour]:
        return [neighbour for neighbour in self.all if neighbour.protocol == FLOODSUB]

    def flush(self) -> None:
        unflushed, self.unflushed[:] = self.unflushed.copy(), ()
        for neighbour in unflushed:
            neighbour.flush()


@dataclass
class _Wire:
    """Carries what one node writes to another."""

    send: trio.MemorySendChannel[tuple[float, bytes]]
    delay: float
    is_initiator: bool

    def send_now(self, data: bytes) -> bool:
        self.send.send_nowait((trio.current_time() + self.delay + len(data) / BANDWIDTH, data))
        return True

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.send_now(data)


@dataclass
class GossipNode:
    """One node, and what it heard."""

    peer: PeerID
    gossip: Gossip = field(init=False)
    counters: Counter[str] = field(default_factory=Counter)
    heard: dict[bytes, float] = field(default_factory=dict)
    """When each payload was delivered."""
    offences: list[tuple[PeerID, str]] = field(default_factory=list)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    links: dict[PeerID, trio.CancelScope] = field(default_factory=dict)

    @property
    def streams(self) -> Any:
        return self.gossip._streams

    def deliver(self, broadcast: Broadcast) -> None:
        assert broadcast.payload not in self.heard
        self.heard[broadcast.payload] = trio.current_time()


class GossipNet:
    """The nodes and the links between them."""

    def __init__(self, nursery: trio.Nursery, seed: int = 1) -> None:
        self.random = Random(seed)
        self.nodes: list[GossipNode] = []
        self._nursery = nursery

    def add(self) -> GossipNode:
        """A node that is subscribed to TOPIC and knows nobody."""
        pair = create_new_key_pair(hashlib.sha256(b"%d" % len(self.nodes)).digest())
        peer = ID.from_pubkey(pair.public_key)
        host = SimpleNamespace(
            get_id=lambda: peer,
            get_private_key=lambda: pair.private_key,
            get_public_key=lambda: pair.public_key,
        )
        node = GossipNode(PeerID(peer.to_base58()))
        node.gossip = Gossip(
            host,
            self._nursery,
            deliver=node.deliver,
            subscribed=lambda peer: None,
            offence=lambda peer, what: node.offences.append((peer, what)),
            budgets=Budgets(trio.current_time, is_connected=lambda peer: True, cut_off=lambda *_: None),
            counters=node.counters,
        )
        node.gossip.meshes.subscribe(TOPIC)
        self.nodes.append(node)
        self._nursery.start_soon(self._run, node)
        return node

    async def _run(self, node: GossipNode) -> None:
        with node.scope:
            await trio.sleep(self.random.random())  # heartbeats do not come at the same time
            await node.gossip.run()

    def connect(self, here: GossipNode, there: GossipNode, protocol: str = GOSSIPSUB_12) -> None:
        """`here` dials `there`."""
        if here is there or there.peer in here.links:
            return
        delay = self.random.uniform(FASTEST, SLOWEST)
        for one, other in ((here, there), (there, here)):
            send, receive = trio.open_memory_channel[tuple[float, bytes]](10_000)
            streams = one.streams
            neighbour = Neighbour(other.peer, one.counters, streams.callbacks["may_send"], streams.unflushed)
            wire: Any = _Wire(send, delay, one is here)
            neighbour.opened(wire, wire, protocol)
            streams.neighbours[other.peer] = neighbour
            other.links[one.peer] = trio.CancelScope()
            self._nursery.start_soon(neighbour.run)
            self._nursery.start_soon(self._read, other, one.peer, receive)
        for one, other in ((here, there), (there, here)):
            one.streams.callbacks["opened"](one.streams.neighbours[other.peer])

    async def _read(self, node: GossipNode, peer: PeerID, receive: Any) -> None:
        reader = FrameReader()
        with node.links[peer]:
            async for at, data in receive:
                await trio.sleep_until(at)
                await node.streams.callbacks["receive"](node.streams.neighbours[peer], reader, data)

    def end(self, node: GossipNode) -> None:
        """A node dies."""
        self.nodes.remove(node)
        node.scope.cancel()
        for other in self.nodes:
            if node.peer in other.links:
                other.links.pop(node.peer).cancel()
                node.links.pop(other.peer).cancel()
                neighbour = other.streams.neighbours.pop(node.peer)
                neighbour.closed()
                other.streams.callbacks["closed"](neighbour)

    async def settle(self, heartbeats: float = 5) -> None:
        """Let so many heartbeats pass."""
        await trio.sleep(heartbeats)

    async def spread(self, author: GossipNode, payload: bytes, patience: float = 5.0) -> float:
        """Publish a message. Seconds until all others have it; fails when they do not get it."""
        began = trio.current_time()
        author.gossip.publish(TOPIC, payload)
        others = [node for node in self.nodes if node is not author]
        await trio.sleep(patience)
        missing = [node.peer for node in others if payload not in node.heard]
        assert missing == []
        return max(node.heard[payload] for node in others) - began

    def total(self, counter: str) -> int:
        return sum(node.counters[counter] for node in self.nodes)


@asynccontextmanager
async def gossip_net(monkeypatch: pytest.MonkeyPatch, seed: int = 1) -> AsyncIterator[GossipNet]:
    """A network for the length of the block. Needs a clock that jumps."""
    monkeypatch.setattr(pubsub, "GossipStreams", _Streams)
    monkeypatch.setattr(pubsub, "Random", partial(Random, seed))
    async with trio.open_nursery() as nursery:
        yield GossipNet(nursery, seed)
        nursery.cancel_scope.cancel()


def random_links(net: GossipNet, count: int, each: int) -> None:
    """Add nodes of which each dials so many of the earlier ones."""
    for _ in range(count):
        node = net.add()
        earlier = net.nodes[:-1]
        for other in net.random.sample(earlier, min(each, len(earlier))):
            net.connect(node, other)
