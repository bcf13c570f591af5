"""Messengers on an in-memory network, and what they received."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import trio

from bacalhau_p2p.bprotocol import messages
from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messenger import Messenger
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.tasks import background
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from bacalhau_p2p.transports.memory.transport import MemoryTransport

ALICE, BOB, CAROL = (Identity.generate(bytes([number]) * 32).peer_id for number in range(1, 4))
ACCEPTED = messages.BidAccepted(job_id="j", execution_id="e")


class MessengerPeer:
    """A messenger and what it received. With `processes` it marks messages as processed at once."""

    def __init__(self, transport: MemoryTransport, *, processes: bool = True) -> None:
        ids = itertools.count(1)
        prefix = transport.peer_id[-8:].encode()
        self.transport = transport
        self.messenger = Messenger(
            transport,
            network="test",
            clock=trio.current_time,
            rng=Random(1).random,
            new_message_id=lambda: MessageID(prefix + next(ids).to_bytes(8, "big")),
        )
        self.received: list[Arrival] = []
        self.processes = processes
        self.messenger.listen([messages.BidAccepted, messages.JobClosed, messages.Heartbeat], self._receive)

    def _receive(self, arrival: Arrival) -> None:
        self.received.append(arrival)
        if self.processes:
            self.messenger.mark_processed(arrival)

    def dispatch(self, to: PeerID, message: messages.Message = ACCEPTED, *, lifetime: float = 3600) -> None:
        """Send a direct message that expires after `lifetime` seconds."""
        composed = self.messenger.compose(to, message, trio.current_time() + lifetime)
        self.messenger.dispatch(composed, owner=self)


@asynccontextmanager
async def open_messenger(
    network: MemoryNetwork, peer: PeerID, *, processes: bool = True
) -> AsyncIterator[MessengerPeer]:
    """A running messenger for the length of the block."""
    async with network.open(peer) as transport, background() as nursery:
        opened = MessengerPeer(transport, processes=processes)
        await nursery.start(opened.messenger.run)
        yield opened
