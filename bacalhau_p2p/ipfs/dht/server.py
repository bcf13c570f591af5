"""The answering side of the DHT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from weakref import WeakValueDictionary

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.ipfs.dht.client import DhtClient
from bacalhau_p2p.ipfs.dht.limits import (
    IDLE_TIMEOUT,
    SLOT_TIMEOUT,
    STREAMS_PER_PEER,
    WAITING_STREAMS_PER_PEER,
)
from bacalhau_p2p.ipfs.dht.provider_store import ProviderStore
from bacalhau_p2p.ipfs.dht.routing_table import BUCKET_SIZE
from bacalhau_p2p.ipfs.dht.wire import Contact, Message, MessageType, read_message
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.rate_limit import RateLimits

MESSAGES_PER_SECOND, MESSAGE_BURST = 200, 2000
"""Messages accepted from one peer; beyond these its streams are reset."""


class DhtServer:
    """Answers requests from the routing table and the provider records of this node."""

    def __init__(
        self,
        client: DhtClient,
        records: ProviderStore,
        *,
        own_contact: Callable[[], Contact],
        provides: Callable[[bytes], bool],
        clock: Callable[[], float],
        counters: Counter[str],
    ) -> None:
        """`provides`: whether this node provides a key itself. `clock` in seconds."""
        self.records = records
        self._client = client
        self._own_contact = own_contact
        self._provides = provides
        self._clock = clock
        self._counters = counters
        self._slots: WeakValueDictionary[PeerID, trio.Semaphore] = WeakValueDictionary()
        self._rate_limits = RateLimits[PeerID](MESSAGES_PER_SECOND, MESSAGE_BURST)

    async def serve(self, peer: PeerID, stream: HalfCloseableStream) -> None:
        """Answer the requests on an inbound stream until it ends.

        Raises RemoteProtocolError, trio.TooSlowError.
        """
        slots = self._slots.setdefault(peer, trio.Semaphore(STREAMS_PER_PEER))
        await self._acquire_slot(slots)
        try:
            buffer = bytearray()
            while body := await read_message(stream, buffer, IDLE_TIMEOUT):
                if not self._rate_limits.take(peer, self._clock()):
                    raise RemoteProtocolError(f"more than {MESSAGES_PER_SECOND} DHT messages per second")
                answer = self._answer(peer, Message.decode(body))
                if answer is not None:
                    with trio.fail_after(IDLE_TIMEOUT):
                        await stream.send_all(answer.encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            slots.release()

    async def _acquire_slot(self, slots: trio.Semaphore) -> None:
        """Raises RemoteProtocolError when the peer has too many streams open."""
        if slots.statistics().tasks_waiting >= WAITING_STREAMS_PER_PEER:
            most = STREAMS_PER_PEER + WAITING_STREAMS_PER_PEER
            raise RemoteProtocolError(f"more than {most} DHT streams at the same time")
        with trio.move_on_after(SLOT_TIMEOUT) as waiting:
            await slots.acquire()
        if waiting.cancelled_caught:
            raise RemoteProtocolError(f"more than {STREAMS_PER_PEER} DHT streams for {SLOT_TIMEOUT:g} s")

    def _answer(self, peer: PeerID, request: Message) -> Message | None:
        """None for a message that has no answer. Raises RemoteProtocolError."""
        kind, key = request.type, request.key
        if kind is MessageType.PING:
            return Message(type=kind)
        if not key:
            raise RemoteProtocolError(f"a DHT request {kind.name} has no key")
        if kind is MessageType.ADD_PROVIDER:
            self._add_providers(peer, request)
            return None
        if kind is MessageType.PUT_VALUE:
            raise RemoteProtocolError("a DHT request PUT_VALUE is not supported")
        providers: tuple[Contact, ...] = ()
        if kind is MessageType.GET_PROVIDERS:
            providers = tuple(self.records.get(key, self._clock()))
            if self._provides(key):
                providers = (self._own_contact(), *providers)
        closest = self._client.contacts().nearest(key, BUCKET_SIZE + 1)
        closer = tuple(contact for contact in closest if contact.peer != peer)[:BUCKET_SIZE]
        return Message(type=kind, key=key, closer=closer, providers=providers)

    def _add_providers(self, peer: PeerID, request: Message) -> None:
        """A peer can announce only itself."""
        for contact in request.providers:
            if contact.peer == peer and self.records.add(request.key, contact, self._clock()):
                self._counters["records_added"] += 1
