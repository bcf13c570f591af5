"""The streams of gossip: one to each neighbour, opened when it connects, and those that neighbours open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.exceptions import SwarmException

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.libp2p.direct.frames import FrameReader
from bacalhau_p2p.transports.libp2p.gossip.neighbour import Neighbour
from bacalhau_p2p.transports.libp2p.gossip.wire import FLOODSUB, PROTOCOLS
from bacalhau_p2p.transports.libp2p.peer_ids import peer_id_text
from bacalhau_p2p.transports.libp2p.stream import Libp2pStream

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0
"""Seconds between two attempts to open a stream to a neighbour that is connected."""


class GossipStreams:
    """The neighbours of a node and their streams: one to each, and one from each.

    `opened` is called when a neighbour can be written to, `closed` when it cannot any more. `receive` gets
    what one read brought; an exception ends the stream and is recorded as an `offence`. `may_send` is that of
    `Neighbour`.
    """

    def __init__(
        self,
        host: Any,
        nursery: trio.Nursery,
        *,
        opened: Callable[[Neighbour], None],
        closed: Callable[[Neighbour], None],
        receive: Callable[[Neighbour, FrameReader, bytes], Awaitable[None]],
        may_send: Callable[[Neighbour, bytes], bool],
        offence: Callable[[PeerID, str], None],
        counters: Counter[str],
    ) -> None:
        self._host = host
        self._nursery = nursery
        self._opened = opened
        self._closed = closed
        self._receive = receive
        self._may_send = may_send
        self._offence = offence
        self._counters = counters
        self._neighbours: dict[PeerID, Neighbour] = {}
        self._open: dict[PeerID, Neighbour] = {}
        self._opening: set[PeerID] = set()
        self._unflushed: list[Neighbour] = []
        for protocol in PROTOCOLS:
            host.set_stream_handler(protocol, self._serve)

    def get(self, peer: PeerID) -> Neighbour | None:
        """A connected peer."""
        return self._neighbours.get(peer)

    @property
    def all(self) -> Collection[Neighbour]:
        """All connected peers."""
        return self._neighbours.values()

    @property
    def open(self) -> Collection[Neighbour]:
        """Those that can be written to."""
        return self._open.values()

    @property
    def without_gossipsub(self) -> list[Neighbour]:
        """Those of them that only speak floodsub."""
        return [neighbour for neighbour in self._open.values() if neighbour.protocol == FLOODSUB]

    def flush(self) -> None:
        """Write what was put for neighbours since the last time."""
        unflushed, self._unflushed[:] = self._unflushed.copy(), ()
        for neighbour in unflushed:
            neighbour.flush()

    # --- connections --------------------------------------------------------------------------

    def connected(self, conn: Any) -> None:
        """There is a new connection: open a stream to its peer, unless there is one."""
        self._keep_open(self._neighbour(conn.muxed_conn), conn.muxed_conn.peer_id)

    def connection_lost(self, muxed_conn: Any) -> None:
        """A connection ended. When it carried our stream, open a new one on another that is left.

        A peer may restart so fast that its new connection comes before the loss of the old one is noticed.
        """
        neighbour = self._neighbours.get(peer_id_text(muxed_conn.peer_id.to_bytes()))
        if neighbour is not None and neighbour.written_to is muxed_conn:
            self._close(neighbour)
        if neighbour is not None:
            self._keep_open(neighbour, muxed_conn.peer_id)

    def _neighbour(self, muxed_conn: Any) -> Neighbour:
        peer = peer_id_text(muxed_conn.peer_id.to_bytes())
        neighbour = self._neighbours.get(peer)
        if neighbour is None:
            neighbour = self._neighbours[peer] = Neighbour(
                peer, self._counters, self._may_send, self._unflushed
            )
        return neighbour

    def _is_connected(self, peer_id: Any) -> bool:
        connections = self._host.get_network().get_connections(peer_id)
        return any(not conn.is_closed for conn in connections)

    def _keep_open(self, neighbour: Neighbour, peer_id: Any) -> None:
        """Open a stream to a neighbour that has none, or forget it when it has no connection either."""
        if neighbour.is_open or neighbour.peer in self._opening:
            return
        if self._is_connected(peer_id):
            self._opening.add(neighbour.peer)
            self._nursery.start_soon(self._write, neighbour, peer_id)
        elif self._neighbours.get(neighbour.peer) is neighbour:
            del self._neighbours[neighbour.peer]

    def _close(self, neighbour: Neighbour) -> None:
        if neighbour.is_open:
            neighbour.closed()
            del self._open[neighbour.peer]
            with FaultBarrier(self._counters, "gossip_faults", "forgetting a neighbour"):
                self._closed(neighbour)

    # --- tasks --------------------------------------------------------------------------------

    async def _write(self, neighbour: Neighbour, peer_id: Any) -> None:
        """Open a stream to a neighbour and write to it until it breaks."""
        net_stream = None
        with FaultBarrier(
            self._counters, "gossip_faults", "writing to a neighbour", expected=(BaseLibp2pError, OSError)
        ):
            try:
                net_stream = await self._open_stream(peer_id)
            finally:
                self._opening.discard(neighbour.peer)
            if net_stream is not None and self._neighbours.get(neighbour.peer) is neighbour:
                protocol = str(net_stream.get_protocol() or "")
                neighbour.opened(Libp2pStream(net_stream), net_stream.muxed_conn, protocol)
                self._open[neighbour.peer] = neighbour
                self._opened(neighbour)
                await neighbour.run()
        if net_stream is None:
            self._forget_if_gone(neighbour, peer_id)
            return
        if neighbour.written_to is net_stream.muxed_conn:
            self._close(neighbour)
        await self._reset(net_stream)
        self._keep_open(neighbour, peer_id)

    async def _open_stream(self, peer_id: Any) -> Any:
        """A stream in the newest protocol of a connected peer; None when the connection is lost meanwhile.

        Raises BaseLibp2pError for a peer without gossip.
        """
        pause = FIRST_PAUSE
        while self._is_connected(peer_id):
            try:
                return await self._host.new_stream(peer_id, list(PROTOCOLS))
            except SwarmException:  # the connection is not ready, or is ending
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        return None

    def _forget_if_gone(self, neighbour: Neighbour, peer_id: Any) -> None:
        if not self._is_connected(peer_id) and self._neighbours.get(neighbour.peer) is neighbour:
            del self._neighbours[neighbour.peer]

    async def _serve(self, net_stream: Any) -> None:
        """Read a neighbour's messages, many per read. Garbage ends this stream only."""
        neighbour = self._neighbour(net_stream.muxed_conn)
        older, neighbour.read_from = neighbour.read_from, net_stream
        if older is not None:  # or each stream could hold half a message
            await self._reset(older)
        with FaultBarrier(
            self._counters,
            "gossip_faults",
            "a peer's gossip stream",
            expected=(trio.BrokenResourceError, trio.ClosedResourceError),
        ) as barrier:
            source, reader = Libp2pStream(net_stream), FrameReader("gossip message")
            while data := await source.receive_some():
                await self._receive(neighbour, reader, data)
        if barrier.fault is not None and not isinstance(barrier.fault, trio.BrokenResourceError):
            self._offence(neighbour.peer, "garbage on a gossip stream")
        await self._reset(net_stream)
        if neighbour.read_from is net_stream:
            neighbour.read_from = None
        if not neighbour.is_open and neighbour.peer not in self._opening:
            self._forget_if_gone(neighbour, net_stream.muxed_conn.peer_id)

    async def _reset(self, net_stream: Any) -> None:
        with FaultBarrier(
            self._counters, "gossip_faults", "resetting a stream", expected=(BaseLibp2pError, OSError)
        ):
            await net_stream.reset()
