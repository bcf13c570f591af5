"""One node's part in the DHT: it answers requests, finds providers and announces itself as one.

An idle node sends nothing: other nodes are learned from the peer store and from answers, and a node that has
gone is noticed when it is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from trio.abc import HalfCloseableStream

from bacalhau_p2p.ipfs.dht.client import DhtClient
from bacalhau_p2p.ipfs.dht.lookup import Lookup
from bacalhau_p2p.ipfs.dht.peerstore import Peerstore
from bacalhau_p2p.ipfs.dht.provider_store import ProviderStore
from bacalhau_p2p.ipfs.dht.reprovider import Reprovider, Roots
from bacalhau_p2p.ipfs.dht.server import DhtServer
from bacalhau_p2p.ipfs.dht.wire import Contact, Message, MessageType, key_of
from bacalhau_p2p.ipfs.exchange.interface import OpenStream
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID

ENOUGH_PROVIDERS = 8
"""Providers after which a lookup ends."""


class Dht:
    """This node in the DHT of one protocol id."""

    def __init__(
        self,
        own: PeerID,
        protocol: str,
        open_stream: OpenStream,
        peerstore: Peerstore,
        *,
        clock: Callable[[], float],
        lookup_each_key: bool = False,
    ) -> None:
        """`lookup_each_key`: set it where the peer store knows only a small part of the nodes. `clock` in
        seconds."""
        self._own = own
        self._peerstore = peerstore
        self._clock = clock
        self.counters: Counter[str] = Counter()
        self.records = ProviderStore()
        self._client = DhtClient(own, protocol, open_stream, peerstore, clock, self.counters)
        self._reprovider = Reprovider(
            self._client,
            own_contact=self._own_contact,
            connected=peerstore.connected,
            clock=clock,
            counters=self.counters,
            lookup_each_key=lookup_each_key,
        )
        self._server = DhtServer(
            self._client,
            self.records,
            own_contact=self._own_contact,
            provides=self._reprovider.provides,
            clock=clock,
            counters=self.counters,
        )

    def _own_contact(self) -> Contact:
        return Contact(self._own, tuple(self._peerstore.own_addresses()))

    async def serve(self, peer: PeerID, stream: HalfCloseableStream) -> None:
        """Answer the requests on an inbound stream. Raises RemoteProtocolError, trio.TooSlowError."""
        await self._server.serve(peer, stream)

    async def find_providers(self, cid: CID, on_found: Callable[[PeerID], None]) -> str:
        """Call `on_found` for each provider; returns how many nodes were asked, in words.

        Cancelled: no request is in flight any more.
        """
        key, found = key_of(cid), set[PeerID]()

        def add(contacts: Iterable[Contact]) -> None:
            for contact in contacts:
                if contact.peer not in found and contact.peer != self._own:
                    found.add(contact.peer)
                    self._peerstore.add_addresses(contact.peer, contact.addresses)
                    on_found(contact.peer)

        def on_answer(answer: Message) -> bool:
            add(answer.providers)
            return len(found) >= ENOUGH_PROVIDERS

        add(self.records.get(key, self._clock()))
        request = Message(type=MessageType.GET_PROVIDERS, key=key)
        answered = await Lookup(self._client, request, on_answer).run()
        self.counters["lookups"] += 1
        return f"DHT lookup ({'1 node' if len(answered) == 1 else f'{len(answered)} nodes'})"

    def provide(self, cid: CID) -> None:
        """Announce this node as a provider soon, unless it did so recently."""
        self._reprovider.provide(cid)

    def disconnected(self, peer: PeerID) -> None:
        """A peer disconnected, and may come back without its records."""
        self._reprovider.disconnected(peer)

    async def run(self, roots: Roots) -> None:
        """Announce what is due, and renew what is about to expire, until cancelled."""
        await self._reprovider.run(roots)
