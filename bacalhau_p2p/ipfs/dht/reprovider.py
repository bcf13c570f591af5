"""Announces this node as a provider, and again before other nodes forget it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from math import inf

import trio

from bacalhau_p2p.ipfs.dht.client import DhtClient
from bacalhau_p2p.ipfs.dht.lookup import Lookup
from bacalhau_p2p.ipfs.dht.routing_table import BUCKET_SIZE, SortedContacts
from bacalhau_p2p.ipfs.dht.wire import Contact, Message, MessageType, key_of
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.events import AutoResetEvent

COALESCE_DELAY = 2.0
"""Seconds that a key waits for others, to be announced together with them."""
BATCH_INTERVAL = 15.0
"""Seconds between two batches: opening a stream costs more than sending a hundred records on it."""
BATCH_SIZE = 2000
"""Keys that are announced together."""
RETRY_INTERVAL = 15.0
"""Seconds until the next attempt when no node took an announcement."""
REPLICATION = 10
"""Nodes that each key is announced to."""
SEND_CONCURRENCY = 5
"""Nodes that are sent announcements at the same time."""
MAX_PENDING_KEYS = 100_000
"""Keys that wait to be announced; further ones are announced after the next scan of the pins."""
SCAN_INTERVAL = 600.0
"""Seconds between two scans for pins whose records are about to expire."""
REPROVIDE_INTERVAL = 11 * 3600.0
"""Seconds until a record is renewed; other nodes keep it for 24 h."""

Roots = Callable[[], Awaitable[Iterable[CID]]]
"""The roots that this node announces itself as a provider of."""


class Reprovider:
    """The keys that this node provides, and those that are due to be announced."""

    def __init__(
        self,
        client: DhtClient,
        *,
        own_contact: Callable[[], Contact],
        connected: Callable[[], Collection[PeerID]],
        clock: Callable[[], float],
        counters: Counter[str],
        lookup_each_key: bool,
    ) -> None:
        """`lookup_each_key`: find the nodes closest to each key by a lookup; otherwise all nodes are assumed
        to be known. `clock` in seconds."""
        self._client = client
        self._own_contact = own_contact
        self._connected = connected
        self._clock = clock
        self._counters = counters
        self._lookup_each_key = lookup_each_key
        self._due: dict[bytes, None] = {}
        self._provided_at: dict[bytes, float] = {}
        self._informed: set[PeerID] = set()
        self._lost_records = False
        self._keys_due = AutoResetEvent()

    def provides(self, key: bytes) -> bool:
        """Whether this node has announced itself as a provider of the key."""
        return key in self._provided_at

    def provide(self, cid: CID) -> None:
        """Announce this node as a provider soon, unless it did so recently."""
        key = key_of(cid)
        provided_at = self._provided_at.get(key)
        if provided_at is not None and self._clock() - provided_at < REPROVIDE_INTERVAL:
            return
        if len(self._due) >= MAX_PENDING_KEYS:
            return
        self._due[key] = None
        self._keys_due.set()

    def disconnected(self, peer: PeerID) -> None:
        """A peer disconnected; if it restarts, it has lost its records."""
        if peer in self._informed:
            self._informed.discard(peer)
            self._lost_records = True

    async def run(self, roots: Roots) -> None:
        """Announce what is due, and renew what is about to expire, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._scan, roots)
            while True:
                await self._keys_due.wait()
                if not self._due:
                    continue
                await trio.sleep(COALESCE_DELAY)
                batch = list(self._due)[:BATCH_SIZE]
                if await self._announce(batch):
                    self._announced(batch)
                    await trio.sleep(BATCH_INTERVAL - COALESCE_DELAY)
                else:
                    await trio.sleep(RETRY_INTERVAL)
                    self._keys_due.set()

    def _announced(self, keys: Sequence[bytes]) -> None:
        now = self._clock()
        for key in keys:
            self._due.pop(key, None)
            self._provided_at[key] = now
        self._counters["keys_provided"] += len(keys)
        if self._due:
            self._keys_due.set()

    async def _scan(self, roots: Roots) -> None:
        """Make due what has to be announced again, and forget what is no longer pinned."""
        while True:
            wanted = {key_of(root): root for root in await roots()}
            if self._lost_records:
                self._lost_records = False
                self._provided_at = dict.fromkeys(self._provided_at, -inf)
            self._provided_at = {key: when for key, when in self._provided_at.items() if key in wanted}
            for root in wanted.values():
                self.provide(root)
            await trio.sleep(SCAN_INTERVAL)

    async def _announce(self, keys: Sequence[bytes]) -> bool:
        """Announce keys to the nodes closest to each; whether at least one node took an announcement."""
        targets = await self._targets(keys)
        accepted = 0
        limiter = trio.CapacityLimiter(SEND_CONCURRENCY)

        async def send(contact: Contact, about: list[bytes]) -> None:
            nonlocal accepted
            own = (self._own_contact(),)
            messages = [Message(type=MessageType.ADD_PROVIDER, key=key, providers=own) for key in about]
            async with limiter:
                if await self._client.send(contact, messages, strict=not self._lookup_each_key):
                    accepted += 1
                    self._informed.add(contact.peer)

        async with trio.open_nursery() as nursery:
            for contact, about in targets.values():
                nursery.start_soon(send, contact, about)
        return accepted > 0

    async def _targets(self, keys: Sequence[bytes]) -> dict[PeerID, tuple[Contact, list[bytes]]]:
        """The nodes to send announcements to, each with its keys."""
        targets: dict[PeerID, tuple[Contact, list[bytes]]] = {}
        known, connected = self._client.contacts(), self._connected()
        candidates = SortedContacts(contact for contact in known if contact.peer in connected)
        if len(known) > BUCKET_SIZE or not candidates:  # in a small network a lookup asks every node anyway
            candidates = known
        for key in keys:
            if self._lookup_each_key:
                request = Message(type=MessageType.FIND_NODE, key=key)
                closest = await Lookup(self._client, request).run()
            else:
                closest = candidates.nearest(key, REPLICATION)
            for contact in closest[:REPLICATION]:
                targets.setdefault(contact.peer, (contact, []))[1].append(key)
            await trio.lowlevel.checkpoint()
        return targets
