"""The connections of an in-memory network: made, lost, redialled, and flooded with broadcasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.interface import PeerConnected, PeerDisconnected
from bacalhau_p2p.transports.memory.endpoint import Endpoint
from bacalhau_p2p.transports.memory.links import Links, Pair, pair
from bacalhau_p2p.transports.memory.streams import MemoryStream, memory_stream_pair


@dataclass(slots=True, eq=False)
class Connection:
    """A connection between two peers, and its streams."""

    ends: Pair
    streams: list[MemoryStream] = field(default_factory=list)
    cut_at: float | None = None


class Connections:
    """All endpoints of a network and the connections between them.

    The parameters are those of `MemoryNetwork`.
    """

    def __init__(self, links: Links, *, full_mesh: bool, notice_after: float, redial_after: float) -> None:
        self.links = links
        self._full_mesh = full_mesh
        self._notice_after = notice_after
        self._redial_after = redial_after
        self._endpoints: dict[PeerID, Endpoint] = {}
        self._connections: dict[Pair, Connection] = {}
        self._refused: dict[Pair, float] = {}

    # --- endpoints ----------------------------------------------------------------------------

    def endpoint(self, peer: PeerID) -> Endpoint | None:
        """The endpoint of a peer that is open."""
        return self._endpoints.get(peer)

    def add(self, endpoint: Endpoint) -> None:
        """Let a peer be reached; in a full mesh connect it to all others."""
        self._endpoints[endpoint.peer] = endpoint
        if self._full_mesh:
            for other in list(self._endpoints):
                if other != endpoint.peer and not self.links.is_blocked(endpoint.peer, other):
                    self.connect(endpoint.peer, other)

    def remove(self, endpoint: Endpoint) -> None:
        """Drop all connections of a peer that closes."""
        for other in self.peers_of(endpoint.peer):
            self.drop(endpoint.peer, other)
        del self._endpoints[endpoint.peer]
        endpoint.close()

    # --- connections --------------------------------------------------------------------------

    def peers_of(self, peer: PeerID) -> list[PeerID]:
        """The peers that are connected to this one."""
        return [b if a == peer else a for a, b in self._connections if peer in (a, b)]

    def transferring_with(self, peer: PeerID) -> list[PeerID]:
        """The peers with which this one has an open stream."""
        return [
            other
            for other in self.peers_of(peer)
            if any(not stream.closed for stream in self._connections[pair(peer, other)].streams)
        ]

    def are_connected(self, one: PeerID, other: PeerID) -> bool:
        """Whether there is a connection between these two."""
        return pair(one, other) in self._connections

    def connect(self, one: PeerID, other: PeerID) -> None:
        """Connect two endpoints, unless one refuses the other; both get PeerConnected."""
        if self.are_connected(one, other) or self._refused.get(pair(one, other), 0) > trio.current_time():
            return
        self._connections[pair(one, other)] = Connection(pair(one, other))
        for here, there in ((one, other), (other, one)):
            endpoint = self._endpoints[here]
            endpoint.known_addresses[there] = self._endpoints[there].addresses
            endpoint.put_event(PeerConnected(there), self.links.transit(there, here) or 0.0)

    def drop(self, one: PeerID, other: PeerID) -> None:
        """Disconnect two peers and break the streams between them; both get PeerDisconnected."""
        connection = self._connections.pop(pair(one, other), None)
        if connection is None:
            return
        for stream in connection.streams:
            stream.break_()
        for here, there in ((one, other), (other, one)):
            if endpoint := self._endpoints.get(here):
                endpoint.put_event(PeerDisconnected(there), 0.0)

    def refuse(self, peer: PeerID, other: PeerID, seconds: float) -> None:
        """`peer` cuts `other` off: disconnect them, and keep them apart for so long."""
        self._refused[pair(peer, other)] = trio.current_time() + seconds
        self.drop(peer, other)

    async def dial(self, source: PeerID, target: PeerID, addresses: Sequence[str]) -> None:
        """Connect, taking as long as a handshake would. Raises PeerUnreachable."""
        if self.links.is_blocked(source, target):
            await trio.sleep(self._notice_after)
        else:
            await trio.sleep(self.links.round_trip(source, target))
        listener = self._endpoints.get(target)
        if listener is None or self.links.is_blocked(source, target):
            raise PeerUnreachable(f"no answer from peer {target}")
        if not self._full_mesh and not set(addresses) & set(listener.addresses):
            raise PeerUnreachable(f"peer {target} is at none of its {len(addresses)} known addresses")
        if source in self._endpoints:
            self.connect(source, target)
            if not self.are_connected(source, target):
                raise PeerUnreachable(f"peer {target} refuses connections for a while")

    async def open_stream(self, source: PeerID, target: PeerID, protocol: str) -> MemoryStream:
        """A stream between connected peers, served by the handler of `target`. Raises PeerUnreachable."""
        await trio.sleep(self.links.round_trip(source, target))
        connection = self._connections.get(pair(source, target))
        if connection is None:
            raise PeerUnreachable(f"lost the connection to peer {target}")
        endpoint = self._endpoints[target]
        if protocol not in endpoint.handlers:
            raise PeerUnreachable(f"peer {target} does not support {protocol}")
        here, there = memory_stream_pair(
            lambda: self.links.transit(source, target), lambda: self.links.transit(target, source)
        )
        connection.streams = [*(s for s in connection.streams if not s.closed), here, there]
        endpoint.serve(source, protocol, there)
        return here

    # --- cuts ---------------------------------------------------------------------------------

    def link_cut(self, source: PeerID, target: PeerID) -> None:
        """A direction was cut: the connection is lost `notice_after` seconds later, unless it heals."""
        connection = self._connections.get(pair(source, target))
        if connection is not None and connection.cut_at is None:
            connection.cut_at = trio.current_time()
            self._endpoints[source].nursery.start_soon(self._give_up, connection, connection.cut_at)

    def link_healed(self, ends: Pair) -> None:
        """Cuts between these two were undone: streams go on, or in a full mesh a new connection is made."""
        if connection := self._connections.get(ends):
            if not self.links.is_blocked(*ends):
                connection.cut_at = None
            for stream in connection.streams:
                stream.link_changed()
        elif self._full_mesh and ends[0] in self._endpoints:
            self._endpoints[ends[0]].nursery.start_soon(self._redial, *ends)

    async def _give_up(self, connection: Connection, cut_at: float) -> None:
        await trio.sleep(self._notice_after)
        if self._connections.get(connection.ends) is connection and connection.cut_at == cut_at:
            self.drop(*connection.ends)

    async def _redial(self, one: PeerID, other: PeerID) -> None:
        await trio.sleep(self._redial_after)
        if one in self._endpoints and other in self._endpoints and not self.links.is_blocked(one, other):
            self.connect(one, other)

    # --- broadcasts ---------------------------------------------------------------------------

    def audience(self, author: PeerID, topic: str) -> list[Endpoint]:
        """The subscribers that gossip reaches from `author`, over connections of subscribers that are not
        cut."""
        reached = {author: None}
        border = [author]
        while border:
            here = border.pop(0)
            for there in self.peers_of(here):
                subscribed = topic in self._endpoints[there].topics
                if there not in reached and subscribed and not self.links.is_cut(here, there):
                    reached[there] = None
                    border.append(there)
        return [self._endpoints[peer] for peer in reached if peer != author]
