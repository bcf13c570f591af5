"""The receiving side of one peer on an in-memory network."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress

import trio

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.arrivals import Arrivals
from bacalhau_p2p.transports.budgets import Budgets
from bacalhau_p2p.transports.faults import FaultBarrier
from bacalhau_p2p.transports.interface import (
    Broadcast,
    DirectFrame,
    Incoming,
    PeerConnected,
    PeerDisconnected,
    StreamHandler,
    Traffic,
)
from bacalhau_p2p.transports.memory.delivery_queue import DeliveryQueue
from bacalhau_p2p.transports.memory.links import Links
from bacalhau_p2p.transports.memory.streams import MemoryStream


class Endpoint:
    """Where broadcasts, frames, streams and news of connections arrive at one peer.

    Its tasks run in `nursery` and put what arrives into `arrivals`, as far as `budgets` allow.
    """

    def __init__(
        self,
        peer: PeerID,
        address: str,
        links: Links,
        nursery: trio.Nursery,
        *,
        budgets: Budgets,
        arrivals: Arrivals,
    ) -> None:
        self.peer = peer
        self.addresses = (address,)
        self.nursery = nursery
        self.topics: set[str] = set()
        self.handlers: dict[str, StreamHandler] = {}
        self.counters: Counter[str] = Counter()
        self.traffic = Traffic()
        self.known_addresses: dict[PeerID, tuple[str, ...]] = {}
        self._links = links
        self.budgets = budgets
        self._arrivals = arrivals
        self._direct = DeliveryQueue(self._deliver_direct)
        self._broadcasts = DeliveryQueue(self._deliver_broadcast)
        nursery.start_soon(self._direct.run)
        nursery.start_soon(self._broadcasts.run)

    def put_frame(self, source: PeerID, payload: bytes) -> None:
        """A frame was sent here, over the link from `source`."""
        for delay, overtaken in self._links.arrivals(source, self.peer):
            self._direct.put(source, DirectFrame(source, bytes(payload)), delay, overtaken=overtaken)

    def put_broadcast(self, message: Broadcast) -> None:
        """A broadcast was published. It takes the link from its author, or a detour when that is cut."""
        if self._links.is_cut(message.author, self.peer):
            self._broadcasts.put(message.author, message, 0.0)  # passed on by other peers
            return
        for delay, overtaken in self._links.arrivals(message.author, self.peer):
            self._broadcasts.put(message.author, message, delay, overtaken=overtaken)

    def put_event(self, event: PeerConnected | PeerDisconnected, delay: float) -> None:
        """A connection was made or lost."""
        self._direct.put(event.peer, event, delay)

    async def wait_for_space(self, source: PeerID) -> None:
        """Wait until another frame of `source` may be sent here. Raises PeerUnreachable."""
        await self._direct.wait_for_space(source)

    def has_space(self, source: PeerID, frames: int) -> bool:
        """Whether so many more frames of `source` may be sent here."""
        return self._direct.has_space(source, frames)

    def serve(self, peer: PeerID, protocol: str, stream: MemoryStream) -> None:
        """Run the handler of this protocol on a stream that `peer` opened."""
        self.nursery.start_soon(self._serve, peer, protocol, stream)

    def close(self) -> None:
        """Take nothing more."""
        self._direct.close()

    async def _serve(self, peer: PeerID, protocol: str, stream: MemoryStream) -> None:
        try:
            with FaultBarrier(
                self.counters,
                "handler_faults",
                f"handler of {protocol}",
                expected=trio.BrokenResourceError,
                level=logging.WARNING,
            ):
                await self.handlers[protocol](peer, stream)
                with suppress(trio.ClosedResourceError):
                    await stream.send_eof()
        finally:
            stream.close()

    async def _deliver_direct(self, source: PeerID, message: Incoming) -> None:
        if isinstance(message, DirectFrame) and self._links.is_cut(source, self.peer):
            return  # lost: the link was cut while the frame was on its way
        if isinstance(message, DirectFrame) and not self.budgets.takes(source, len(message.payload)):
            self.counters["frames_refused"] += 1
            return
        if isinstance(message, DirectFrame):
            self.traffic.received += len(message.payload)
        await self._arrivals.put(message)

    async def _deliver_broadcast(self, source: PeerID, message: Incoming) -> None:
        assert isinstance(message, Broadcast)
        self.traffic.received += len(message.payload)
        if not self.budgets.admits(source, source) or not self.budgets.takes_broadcast(
            source, source, message.payload
        ):
            self.counters["broadcasts_refused"] += 1
        elif not self._arrivals.put_now(message):
            self.counters["broadcasts_dropped"] += 1
