"""Kademlia's iterative lookup: ask nodes ever closer to a key, until the closest have answered."""

from __future__ import annotations

from collections.abc import Callable

import trio

from bacalhau_p2p.ipfs.dht.client import DhtClient
from bacalhau_p2p.ipfs.dht.routing_table import BUCKET_SIZE, nearest
from bacalhau_p2p.ipfs.dht.wire import Contact, Message
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.events import AutoResetEvent

LOOKUP_CONCURRENCY = 5
"""Nodes that one lookup asks at the same time."""
MAX_NODES_PER_LOOKUP = 60
"""Nodes that one lookup asks in all."""
MAX_CANDIDATES = 4 * MAX_NODES_PER_LOOKUP
"""Nodes that one lookup remembers; further ones that answers name are ignored."""


class Lookup:
    """One lookup for the key of `request`."""

    def __init__(
        self, client: DhtClient, request: Message, on_answer: Callable[[Message], bool] = lambda answer: False
    ) -> None:
        """`on_answer` gets each answer, and returns whether the lookup may end early."""
        self._client = client
        self._request = request
        self._on_answer = on_answer
        self._candidates = {
            contact.peer: contact for contact in client.contacts().nearest(request.key, BUCKET_SIZE)
        }
        self._asked: set[PeerID] = set()
        self._answered: list[Contact] = []
        self._in_flight = 0
        self._done = False
        self._answer_arrived = AutoResetEvent()

    async def run(self) -> list[Contact]:
        """The nodes closest to the key that answered, the closest first."""
        key = self._request.key
        async with trio.open_nursery() as nursery:
            while not self._done and len(self._asked) < MAX_NODES_PER_LOOKUP:
                closest = nearest(key, self._candidates.values(), BUCKET_SIZE)
                to_ask = [contact for contact in closest if contact.peer not in self._asked]
                if not to_ask and not self._in_flight:
                    break
                for contact in to_ask[: LOOKUP_CONCURRENCY - self._in_flight]:
                    self._asked.add(contact.peer)
                    self._in_flight += 1
                    nursery.start_soon(self._ask, contact)
                await self._answer_arrived.wait()
            if self._done:
                nursery.cancel_scope.cancel()
        return nearest(key, self._answered, BUCKET_SIZE)

    async def _ask(self, contact: Contact) -> None:
        answer = await self._client.ask(contact, self._request)
        self._in_flight -= 1
        if answer is None:
            self._candidates.pop(contact.peer, None)
        else:
            self._answered.append(contact)
            self._add_candidates(answer)
            self._done = self._done or self._on_answer(answer)
        self._answer_arrived.set()

    def _add_candidates(self, answer: Message) -> None:
        for closer in answer.closer:
            if closer.peer not in self._asked and closer.peer != self._client.own:
                if len(self._candidates) >= MAX_CANDIDATES:
                    return
                self._candidates.setdefault(closer.peer, closer)
