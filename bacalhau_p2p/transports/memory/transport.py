"""A `Transport` on an in-memory network."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.budgets import Budgets
from bacalhau_p2p.transports.interface import (
    Broadcast,
    IncomingMessages,
    StreamHandler,
    Traffic,
    check_broadcast,
    check_frames,
)
from bacalhau_p2p.transports.memory.connections import Connections
from bacalhau_p2p.transports.memory.endpoint import Endpoint


class MemoryTransport:
    """A `Transport` on a `MemoryNetwork`; made by its `open`."""

    def __init__(self, endpoint: Endpoint, connections: Connections, incoming: IncomingMessages) -> None:
        self._endpoint = endpoint
        self._peer = endpoint.peer
        self._connections = connections
        self._incoming = incoming

    @property
    def peer_id(self) -> PeerID:
        return self._peer

    @property
    def addresses(self) -> Sequence[str]:
        return self._endpoint.addresses

    @property
    def incoming(self) -> IncomingMessages:
        return self._incoming

    @property
    def budgets(self) -> Budgets:
        return self._endpoint.budgets

    @property
    def peers(self) -> Collection[PeerID]:
        return tuple(self._connections.peers_of(self._peer))

    @property
    def transferring(self) -> Collection[PeerID]:
        return tuple(self._connections.transferring_with(self._peer))

    @property
    def counters(self) -> dict[str, int]:
        return dict(self._endpoint.counters)

    @property
    def traffic(self) -> Traffic:
        """Of frames and broadcasts, without those of streams."""
        return self._endpoint.traffic

    async def subscribe(self, topic: str) -> None:
        """As in `Transport`."""
        await trio.lowlevel.checkpoint()
        self._endpoint.topics.add(topic)

    async def broadcast(self, topic: str, payload: bytes) -> None:
        """As in `Transport`. Reaches the peers that gossip would reach.

        Loss, delay and order are those of the link between author and receiver, however many peers passed
        the message on.
        """
        check_broadcast(payload)
        await trio.lowlevel.checkpoint()
        message = Broadcast(self._peer, topic, bytes(payload))
        self.traffic.sent += len(payload)
        for endpoint in self._connections.audience(self._peer, topic):
            endpoint.put_broadcast(message)

    async def send(self, peer: PeerID, *payloads: bytes) -> None:
        """As in `Transport`."""
        check_frames(payloads)
        await trio.lowlevel.checkpoint()
        for payload in payloads:
            await self._reach(peer)
            receiver = self._connections.endpoint(peer)
            assert receiver is not None, "connected peers are open"
            await receiver.wait_for_space(self._peer)
            receiver.put_frame(self._peer, payload)
            self.traffic.sent += len(payload)

    def send_now(self, peer: PeerID, *payloads: bytes) -> bool:
        """As in `Transport`."""
        check_frames(payloads)
        receiver = self._connections.endpoint(peer)
        if receiver is None or not self._connections.are_connected(self._peer, peer):
            return False
        if not receiver.has_space(self._peer, len(payloads)):
            return False
        for payload in payloads:
            receiver.put_frame(self._peer, payload)
            self.traffic.sent += len(payload)
        return True

    def learn_addresses(self, peer: PeerID, addresses: Sequence[str]) -> None:
        """As in `Transport`."""
        self._endpoint.known_addresses[peer] = tuple(addresses)

    async def connect(self, address: str) -> PeerID:
        """As in `Transport`."""
        peer = PeerID(address.rpartition("/p2p/")[2])
        if not address.startswith("/memory/") or not peer:
            raise PeerUnreachable(f"not an address of this network: {address}")
        if peer == self._peer:
            raise PeerUnreachable("this address is the node's own")
        if not self._connections.are_connected(self._peer, peer):
            await self._connections.dial(self._peer, peer, [address])
        await trio.lowlevel.checkpoint()
        return peer

    async def disconnect(self, peer: PeerID) -> None:
        """As in `Transport`."""
        self._connections.drop(self._peer, peer)
        await trio.lowlevel.checkpoint()

    def handle_streams(self, protocol: str, handler: StreamHandler) -> None:
        """As in `Transport`."""
        self._endpoint.handlers[protocol] = handler

    async def open_stream(self, peer: PeerID, protocol: str) -> HalfCloseableStream:
        """As in `Transport`."""
        await self._reach(peer)
        return await self._connections.open_stream(self._peer, peer, protocol)

    async def _reach(self, peer: PeerID) -> None:
        """Make sure of a connection. Raises PeerUnreachable."""
        if peer == self._peer:
            raise PeerUnreachable("this peer is the node itself")
        if not self._connections.are_connected(self._peer, peer):
            known = self._endpoint.known_addresses.get(peer, ())
            await self._connections.dial(self._peer, peer, known)
