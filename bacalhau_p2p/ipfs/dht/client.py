"""The asking side of the DHT: requests to other nodes, and which of them answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from math import inf
from typing import TypeVar
from weakref import WeakValueDictionary

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import PeerUnreachable, RemoteProtocolError
from bacalhau_p2p.ipfs.dht.limits import ANSWER_TIMEOUT, IDLE_TIMEOUT, SLOT_TIMEOUT, STREAMS_PER_PEER
from bacalhau_p2p.ipfs.dht.peerstore import Peerstore
from bacalhau_p2p.ipfs.dht.routing_table import RoutingTable, SortedContacts
from bacalhau_p2p.ipfs.dht.wire import Contact, Message, read_message
from bacalhau_p2p.ipfs.exchange.interface import OpenStream
from bacalhau_p2p.model.base import PeerID

UNRESPONSIVE_BACKOFF = 120.0
"""Seconds until a node that did not answer is asked again."""
MAX_UNRESPONSIVE = 10_000
"""Unresponsive nodes that are remembered; with more, all are forgotten."""
MAX_ALWAYS_CURRENT = 200
"""Nodes up to which every question sees what the peer store has just learned."""
REFRESH_INTERVAL_PER_NODE = 0.001
"""Seconds for each known node, beyond that number, until the peer store is read again."""

_T = TypeVar("_T")


class DhtClient:
    """Talks to other nodes, each message on a stream of its own, and keeps the routing table up to date."""

    def __init__(
        self,
        own: PeerID,
        protocol: str,
        open_stream: OpenStream,
        peerstore: Peerstore,
        clock: Callable[[], float],
        counters: Counter[str],
    ) -> None:
        """`clock` in seconds."""
        self.own = own
        self._protocol = protocol
        self._open_stream = open_stream
        self._peerstore = peerstore
        self._clock = clock
        self._counters = counters
        self._routing_table = RoutingTable(own)
        self._contacts = SortedContacts()
        self._refresh_at = -inf
        self._slots: WeakValueDictionary[PeerID, trio.Semaphore] = WeakValueDictionary()
        self._unresponsive: dict[PeerID, float] = {}

    def contacts(self) -> SortedContacts:
        """All known nodes but this one, without those that recently failed to answer."""
        now = self._clock()
        if now >= self._refresh_at:
            bootstrap = [
                contact
                for contact in self._peerstore.bootstrap()
                if self._unresponsive.get(contact.peer, 0) <= now
            ]
            self._contacts = SortedContacts((*self._routing_table.contacts(), *bootstrap))
            self._contacts.remove(self.own)
            known = len(self._contacts)
            self._refresh_at = now + known * REFRESH_INTERVAL_PER_NODE if known > MAX_ALWAYS_CURRENT else now
        return self._contacts

    async def ask(self, contact: Contact, request: Message) -> Message | None:
        """The answer of a node; None when there is none."""

        async def converse(stream: HalfCloseableStream) -> Message:
            await stream.send_all(request.encode())
            body = await read_message(stream, bytearray(), IDLE_TIMEOUT)
            if body is None:
                raise RemoteProtocolError("the stream ended without an answer")
            answer = Message.decode(body)
            with suppress(trio.BrokenResourceError):  # some nodes reset a stream that we end
                await stream.send_eof()  # not earlier: py-libp2p's own DHT would not answer
                await stream.receive_some()  # the end of stream, so that both ends close in order
            return answer

        return await self._in_slot(contact, converse)

    async def send(self, contact: Contact, messages: Sequence[Message], *, strict: bool) -> bool:
        """Send messages that have no answer. Whether the node took them; not `strict`: a reset after they
        were sent counts as taken."""

        async def converse(stream: HalfCloseableStream) -> bool:
            await stream.send_all(b"".join(message.encode() for message in messages))
            await stream.send_eof()
            with suppress(*() if strict else (trio.BrokenResourceError,)):
                while await stream.receive_some():
                    pass  # some nodes echo the message
            return True

        return await self._in_slot(contact, converse) is not None

    async def _in_slot(
        self, contact: Contact, converse: Callable[[HalfCloseableStream], Awaitable[_T]]
    ) -> _T | None:
        """Run a conversation once one of the node's slots is free; None when it failed.

        When another conversation with the node fails while this one waits, this one is given up too.
        """
        failed_until = self._unresponsive.get(contact.peer)
        slots = self._slots.setdefault(contact.peer, trio.Semaphore(STREAMS_PER_PEER))
        with trio.move_on_after(SLOT_TIMEOUT) as waiting:
            await slots.acquire()
        if waiting.cancelled_caught:
            return None
        try:
            if self._unresponsive.get(contact.peer) != failed_until:
                return None
            return await self._converse(contact, converse)
        finally:
            slots.release()

    async def _converse(
        self, contact: Contact, converse: Callable[[HalfCloseableStream], Awaitable[_T]]
    ) -> _T | None:
        self._peerstore.add_addresses(contact.peer, contact.addresses)
        try:
            with trio.fail_after(ANSWER_TIMEOUT):
                async with await self._open_stream(contact.peer, self._protocol) as stream:
                    result = await converse(stream)
        except (
            PeerUnreachable,
            RemoteProtocolError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
        ):
            self._failed(contact.peer)
            return None
        self._routing_table.add(contact)
        if contact.peer != self.own:
            self._contacts.add(contact)
        return result

    def _failed(self, peer: PeerID) -> None:
        self._counters["unresponsive_nodes"] += 1
        self._routing_table.remove(peer)
        self._contacts.remove(peer)
        if len(self._unresponsive) > MAX_UNRESPONSIVE:
            self._unresponsive.clear()
        self._unresponsive[peer] = self._clock() + UNRESPONSIVE_BACKOFF
