"""A whole network in one process: as many transports as wanted, and links as bad as wanted.

It runs on trio's clock, so that under an autojump clock hours pass in milliseconds, and draws all
all randomness from one `Random`, so that a seed repeats a run. What is slow or lost is asked for:
without conditions everything arrives at once and in order.

    network = MemoryNetwork(random=Random(7))
    async with network.open(alice) as a, network.open(bob) as b:
        network.set_conditions(LinkConditions(loss=0.2, delay=0.05))
        network.partition([a.peer_id], [b.peer_id])
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import MessageTooLarge, PeerUnreachable
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.tasks import background
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.interface import (
    MAX_BROADCAST,
    Broadcast,
    DirectFrame,
    Incoming,
    PeerConnected,
    PeerDisconnected,
    StreamHandler,
    check_frames,
)
from bacalhau_p2p.transports.memory.wires import LinkConditions, MemoryStream, Postbox, memory_stream_pair

__all__ = ["LinkConditions", "MemoryNetwork", "MemoryTransport"]

PERFECT: Final = LinkConditions()

_Pair = tuple[PeerID, PeerID]


def _pair(one: PeerID, other: PeerID) -> _Pair:
    return (one, other) if one < other else (other, one)


@dataclass(slots=True, eq=False)
class _Connection:
    ends: _Pair
    streams: list[MemoryStream] = field(default_factory=list)
    cut_at: float | None = None


class MemoryNetwork:
    """The wires between its transports.

    With `full_mesh` every transport is connected to every other as soon as it is opened, and again
    `redial_after` seconds after a cut between them has healed. Without, transports dial by address.
    A cut connection is given up `notice_after` seconds after the cut (a health check needs that long);
    until then what is sent into it is lost. `random` decides what is lost, late or repeated.
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
        self.random = random or Random(0)  # noqa: S311 - not for secrets
        self.full_mesh = full_mesh
        self.notice_after = notice_after
        self.redial_after = redial_after
        self.incoming_size = incoming_size
        self._default = conditions
        self._conditions: dict[_Pair, LinkConditions] = {}
        self._cuts: set[_Pair] = set()
        self._transports: dict[PeerID, MemoryTransport] = {}
        self._connections: dict[_Pair, _Connection] = {}
        self._ports = itertools.count(1)

    @asynccontextmanager
    async def open(self, who: PeerID | Identity) -> AsyncIterator[MemoryTransport]:
        """A transport of this peer for the length of the block. A peer may come back after it left.

        On exit its handlers are cancelled and the others have lost it. ValueError when it is open already.
        """
        peer = who.peer_id if isinstance(who, Identity) else who
        if peer in self._transports:
            raise ValueError(f"peer {peer} is open already")
        send_incoming, incoming = trio.open_memory_channel[Incoming](self.incoming_size)
        async with send_incoming, background() as nursery:
            transport = MemoryTransport(self, peer, next(self._ports), nursery, send_incoming, incoming)
            self._transports[peer] = transport
            try:
                if self.full_mesh:
                    self._dial_everybody(transport)
                yield transport
            finally:
                for other in transport.peers:
                    self._drop(peer, other)
                del self._transports[peer]
                transport._direct.close()

    def set_conditions(
        self,
        conditions: LinkConditions,
        *,
        source: PeerID | None = None,
        target: PeerID | None = None,
    ) -> None:
        """How links are from now on: all of them, or the one from `source` to `target` (one way)."""
        if source is None and target is None:
            self._default = conditions
            self._conditions.clear()
        elif source is not None and target is not None:
            self._conditions[source, target] = conditions
        else:
            raise ValueError("name both ends of the link, or neither")

    def cut(self, source: PeerID, target: PeerID, *, one_way: bool = False) -> None:
        """Nothing passes from `source` to `target`, nor back unless `one_way`, until it is healed.

        A connection does not survive it for long, not even one way, for acknowledgements are missing.
        """
        self._cuts.add((source, target))
        if not one_way:
            self._cuts.add((target, source))
        connection = self._connections.get(_pair(source, target))
        if connection is not None and connection.cut_at is None:
            connection.cut_at = trio.current_time()
            self._transports[source]._nursery.start_soon(self._give_up, connection, connection.cut_at)

    def partition(self, *groups: Collection[PeerID], one_way: bool = False) -> None:
        """Cut every link between peers of different groups; `one_way`: only from earlier to later groups."""
        for one, other in itertools.combinations(groups, 2):
            for source, target in itertools.product(one, other):
                self.cut(source, target, one_way=one_way)

    def heal(self, source: PeerID | None = None, target: PeerID | None = None) -> None:
        """Undo every cut, or both directions between these two."""
        healed = [
            cut
            for cut in sorted(self._cuts)
            if source is None or target is None or _pair(*cut) == _pair(source, target)
        ]
        self._cuts.difference_update(healed)
        for pair in dict.fromkeys(_pair(*cut) for cut in healed):
            if connection := self._connections.get(pair):
                if not self._blocked(*pair):
                    connection.cut_at = None
                for stream in connection.streams:
                    stream.stir()
            elif self.full_mesh and pair[0] in self._transports:
                self._transports[pair[0]]._nursery.start_soon(self._redial, *pair)

    def is_cut(self, source: PeerID, target: PeerID) -> bool:
        """Whether the link from `source` to `target` lets nothing through now."""
        return (source, target) in self._cuts

    # --- for the transports -------------------------------------------------------------------

    def _transit(self, source: PeerID, target: PeerID) -> float | None:
        if self.is_cut(source, target):
            return None
        conditions = self._conditions.get((source, target), self._default)
        return conditions.delay + (self.random.uniform(0, conditions.jitter) if conditions.jitter else 0.0)

    def _arrivals(self, source: PeerID, target: PeerID) -> Iterable[tuple[float, bool]]:
        """When the copies of one message arrive (seconds from now), and whether out of order."""
        conditions = self._conditions.get((source, target), self._default)
        copies = 1 + (self.random.random() < conditions.repetition)
        for _ in range(copies):
            transit = self._transit(source, target)
            if transit is None or self.random.random() < conditions.loss:
                continue
            overtaken = self.random.random() < conditions.reordering
            if overtaken:
                transit += self.random.uniform(0, conditions.reorder_window)
            yield transit, overtaken

    def _connected(self, peer: PeerID) -> list[PeerID]:
        return [b if a == peer else a for a, b in self._connections if peer in (a, b)]

    def _connect(self, one: PeerID, other: PeerID) -> None:
        if _pair(one, other) in self._connections:
            return
        self._connections[_pair(one, other)] = _Connection(_pair(one, other))
        for here, there in ((one, other), (other, one)):
            transport = self._transports[here]
            transport.learn_addresses(there, self._transports[there].addresses)
            transport._post_event(there, PeerConnected(there), self._transit(there, here) or 0.0)

    def _drop(self, one: PeerID, other: PeerID) -> None:
        connection = self._connections.pop(_pair(one, other), None)
        if connection is None:
            return
        for stream in connection.streams:
            stream.break_()
        for here, there in ((one, other), (other, one)):
            if transport := self._transports.get(here):
                transport._post_event(there, PeerDisconnected(there), 0.0)

    async def _give_up(self, connection: _Connection, cut_at: float) -> None:
        await trio.sleep(self.notice_after)
        if self._connections.get(connection.ends) is connection and connection.cut_at == cut_at:
            self._drop(*connection.ends)

    async def _redial(self, one: PeerID, other: PeerID) -> None:
        await trio.sleep(self.redial_after)
        if one in self._transports and other in self._transports and not self._blocked(one, other):
            self._connect(one, other)

    def _dial_everybody(self, transport: MemoryTransport) -> None:
        for other in list(self._transports):
            if other != transport.peer_id and not self._blocked(transport.peer_id, other):
                self._connect(transport.peer_id, other)

    def _blocked(self, one: PeerID, other: PeerID) -> bool:
        return self.is_cut(one, other) or self.is_cut(other, one)

    async def _dial(self, source: PeerID, target: PeerID, addresses: Sequence[str]) -> None:
        """Take as long as a handshake would. Raises PeerUnreachable."""
        if self._blocked(source, target):
            await trio.sleep(self.notice_after)
        else:
            await trio.sleep((self._transit(source, target) or 0) + (self._transit(target, source) or 0))
        listener = self._transports.get(target)
        if listener is None or self._blocked(source, target):
            raise PeerUnreachable(f"no answer from peer {target}")
        if not self.full_mesh and not set(addresses) & set(listener.addresses):
            raise PeerUnreachable(f"peer {target} is at none of its {len(addresses)} known addresses")
        if source in self._transports:
            self._connect(source, target)

    def _audience(self, author: PeerID, topic: str) -> list[MemoryTransport]:
        """Subscribers that gossip reaches from `author`: over connections of subscribers that are not cut."""
        reached = {author: None}
        border = [author]
        while border:
            here = border.pop(0)
            for there in self._connected(here):
                transport = self._transports[there]
                if there in reached or topic not in transport._topics or self.is_cut(here, there):
                    continue
                reached[there] = None
                border.append(there)
        return [self._transports[peer] for peer in reached if peer != author]


class MemoryTransport:
    """A `Transport` on a `MemoryNetwork`; made by its `open`."""

    def __init__(
        self,
        network: MemoryNetwork,
        peer: PeerID,
        port: int,
        nursery: trio.Nursery,
        send_incoming: trio.MemorySendChannel[Incoming],
        incoming: trio.MemoryReceiveChannel[Incoming],
    ) -> None:
        self._network = network
        self._peer = peer
        self._address = f"/memory/{port}/p2p/{peer}"
        self._nursery = nursery
        self._topics: set[str] = set()
        self._known: dict[PeerID, Sequence[str]] = {}
        self._handlers: dict[str, StreamHandler] = {}
        self._counters: Counter[str] = Counter()
        self._send_incoming = send_incoming
        self._incoming = incoming
        self._direct = Postbox(self._deliver_direct)
        self._broadcasts = Postbox(self._deliver_broadcast)
        nursery.start_soon(self._direct.run)
        nursery.start_soon(self._broadcasts.run)

    @property
    def peer_id(self) -> PeerID:
        return self._peer

    @property
    def addresses(self) -> Sequence[str]:
        return (self._address,)

    @property
    def incoming(self) -> trio.MemoryReceiveChannel[Incoming]:
        return self._incoming

    @property
    def peers(self) -> Collection[PeerID]:
        return tuple(self._network._connected(self._peer))

    @property
    def counters(self) -> dict[str, int]:
        return dict(self._counters)

    async def subscribe(self, topic: str) -> None:
        """As in `Transport`."""
        await trio.lowlevel.checkpoint()
        self._topics.add(topic)

    async def broadcast(self, topic: str, payload: bytes) -> None:
        """As in `Transport`. Reaches whom gossip would reach; random choices are those of the
        link between author and receiver, however many peers passed the message on."""
        if len(payload) > MAX_BROADCAST:
            raise MessageTooLarge(f"a broadcast of {len(payload)} bytes; at most {MAX_BROADCAST} are carried")
        await trio.lowlevel.checkpoint()
        for transport in self._network._audience(self._peer, topic):
            # A cut between the two does not matter here: others pass the message on.
            detour = self._network.is_cut(self._peer, transport.peer_id)
            message = Broadcast(self._peer, topic, bytes(payload))
            for delay, overtaken in (
                [(0.0, False)] if detour else self._network._arrivals(self._peer, transport.peer_id)
            ):
                transport._broadcasts.post(self._peer, message, delay, overtaken=overtaken)

    async def send(self, peer: PeerID, *payloads: bytes) -> None:
        """As in `Transport`."""
        check_frames(payloads)
        await trio.lowlevel.checkpoint()
        for payload in payloads:
            await self._reach(peer)
            receiver = self._network._transports[peer]
            await receiver._direct.wait_for_space(self._peer)
            self._post(receiver, payload)

    def send_now(self, peer: PeerID, *payloads: bytes) -> bool:
        """As in `Transport`."""
        check_frames(payloads)
        receiver = self._network._transports.get(peer)
        if receiver is None or peer not in self.peers:
            return False
        if not receiver._direct.has_space(self._peer, len(payloads)):
            return False
        for payload in payloads:
            self._post(receiver, payload)
        return True

    def _post(self, receiver: MemoryTransport, payload: bytes) -> None:
        for delay, overtaken in self._network._arrivals(self._peer, receiver.peer_id):
            frame = DirectFrame(self._peer, bytes(payload))
            receiver._direct.post(self._peer, frame, delay, overtaken=overtaken)

    def learn_addresses(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """As in `Transport`."""
        self._known[peer] = tuple(addresses)

    async def connect(self, address: str) -> PeerID:
        """As in `Transport`."""
        peer = PeerID(address.rpartition("/p2p/")[2])
        if not address.startswith("/memory/") or not peer:
            raise PeerUnreachable(f"not an address of this network: {address}")
        if peer == self._peer:
            raise PeerUnreachable("this address is our own")
        if peer not in self.peers:
            await self._network._dial(self._peer, peer, [address])
        await trio.lowlevel.checkpoint()
        return peer

    async def disconnect(self, peer: PeerID) -> None:
        """As in `Transport`."""
        self._network._drop(self._peer, peer)
        await trio.lowlevel.checkpoint()

    def handle_streams(self, protocol: str, handler: StreamHandler) -> None:
        """As in `Transport`."""
        self._handlers[protocol] = handler

    async def open_stream(self, peer: PeerID, protocol: str) -> HalfCloseableStream:
        """As in `Transport`."""
        await self._reach(peer)
        forth, back = (self._peer, peer), (peer, self._peer)
        await trio.sleep((self._network._transit(*forth) or 0) + (self._network._transit(*back) or 0))
        connection = self._network._connections.get(_pair(*forth))
        if connection is None:
            raise PeerUnreachable(f"lost the connection to peer {peer}")
        receiver = self._network._transports[peer]
        if protocol not in receiver._handlers:
            raise PeerUnreachable(f"peer {peer} does not speak {protocol}")
        here, there = memory_stream_pair(
            lambda: self._network._transit(*forth), lambda: self._network._transit(*back)
        )
        connection.streams = [*(s for s in connection.streams if not s.closed), here, there]
        receiver._nursery.start_soon(receiver._serve, protocol, self._peer, there)
        return here

    async def _reach(self, peer: PeerID) -> None:
        if peer == self._peer:
            raise PeerUnreachable("this peer is ourselves")
        if peer not in self.peers:
            await self._network._dial(self._peer, peer, self._known.get(peer, ()))

    async def _serve(self, protocol: str, peer: PeerID, stream: MemoryStream) -> None:
        try:
            with FaultBarrier(
                self._counters,
                "handler_faults",
                f"handler of {protocol}",
                expected=trio.BrokenResourceError,
                level=logging.WARNING,
            ):
                await self._handlers[protocol](peer, stream)
                with suppress(trio.ClosedResourceError):
                    await stream.send_eof()
        finally:
            stream.close()

    def _post_event(self, peer: PeerID, event: PeerConnected | PeerDisconnected, delay: float) -> None:
        self._direct.post(peer, event, delay, overtaken=False)

    async def _deliver_direct(self, source: PeerID, message: Incoming) -> None:
        if isinstance(message, DirectFrame) and self._network.is_cut(source, self._peer):
            return  # the cut caught it under way
        await self._send_incoming.send(message)

    async def _deliver_broadcast(self, source: PeerID, message: Incoming) -> None:
        try:
            self._send_incoming.send_nowait(message)
        except trio.WouldBlock:
            self._counters["broadcasts_dropped"] += 1
