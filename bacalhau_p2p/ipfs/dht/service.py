"""One node's part in the DHT: it answers others, finds providers and makes itself known as one.

Nothing is sent while there is nothing to find or to provide: nodes are learned from those at hand
(`seeds`) and from answers, and found out to be gone when they are asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from math import inf
from typing import TypeVar
from weakref import WeakValueDictionary

import trio
from trio.abc import HalfCloseableStream

from bacalhau_p2p.errors import PeerUnreachable, RemoteProtocolError
from bacalhau_p2p.ipfs.dht.routing_table import BUCKET, Records, Table, nearest
from bacalhau_p2p.ipfs.dht.wire import Contact, Kind, Message, take_message, usable
from bacalhau_p2p.ipfs.exchange.fetching import OpenStream
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.base import PeerID

ANSWER_WITHIN = 4.0
"""Seconds that a node has for an answer, dialling included."""
AT_ONCE = 5
"""Nodes that one search asks at one time."""
MOST_ASKED = 60
"""Nodes that one search asks in all."""
ENOUGH = 8
"""Providers after which a search ends."""
STRANGER_FOR = 120.0
"""Seconds for which a peer that did not answer is not asked again."""

COALESCE = 2.0
"""Seconds that keys to be provided wait for others."""
APART = 15.0
"""Seconds between two batches: opening a stream costs more than a hundred records on it."""
BATCH = 2000
"""Keys that are provided together."""
ALONE = 15.0
"""Seconds until somebody is looked for again who could be told."""
REPLICAS = 10
"""Nodes that are told of a provider."""
WAITING = 100_000
"""Keys that wait to be provided; what is more is provided when the pins are next looked through."""
LOOK_EVERY = 600.0
"""Seconds between two looks for pins whose records grow old."""
PROVIDE_AGAIN = 11 * 3600.0
"""Seconds after which a record is made anew; others believe it for 24 h."""

STREAMS_A_PEER = 4
"""Streams of one peer that are served at one time, and that we open to one."""
STREAMS_WAITING = 28
"""Further streams of one peer that wait for their turn; above them, streams are reset."""
TURN_WITHIN = ANSWER_WITHIN
"""Seconds that a stream waits for its turn, here or with who asks; who asked has given up by then."""
IDLE = 15.0
"""Seconds without a byte, after which an inbound stream is given up."""
MESSAGES_A_SECOND, BURST = 200, 2000
"""Messages that one peer may send; beyond it its streams are reset."""

_READ = 16 * 1024

_T = TypeVar("_T")

Roots = Callable[[], Awaitable[Iterable[CID]]]
"""The roots of which this node is to be known as a provider."""


class Dht:
    """The DHT of one protocol id, as one node has it."""

    def __init__(
        self,
        own: PeerID,
        protocol: str,
        open_stream: OpenStream,
        *,
        seeds: Callable[[], Iterable[Contact]],
        meet: Callable[[PeerID, Sequence[str]], None],
        addresses: Callable[[], Sequence[str]],
        clock: Callable[[], float],
        connected: Callable[[], Collection[PeerID]] = tuple,
        explore: bool = False,
    ) -> None:
        """`seeds` are nodes that are known otherwise, and `meet` hears where a peer may be dialled, as others
        said; `addresses` are our own, and `connected` the peers to whom a connection stands. `explore` when
        the seeds are but a small part of all nodes: then each key is provided after a search for the nodes
        nearest to it. `clock` in seconds."""
        self._own = own
        self._protocol = protocol
        self._open_stream = open_stream
        self._seeds = seeds
        self._meet = meet
        self._addresses = addresses
        self._clock = clock
        self._connected = connected
        self._explore = explore
        self._table = Table(own)
        self.records = Records()
        self._serving: WeakValueDictionary[PeerID, trio.Semaphore] = WeakValueDictionary()
        self._asking: WeakValueDictionary[PeerID, trio.Semaphore] = WeakValueDictionary()
        self._allowance: dict[PeerID, tuple[float, float]] = {}
        self._strangers: dict[PeerID, float] = {}
        self._due: dict[bytes, None] = {}
        self._provided: dict[bytes, float] = {}
        self._told: set[PeerID] = set()
        self._lost_records = False
        self._wake = trio.Event()
        self.counters: Counter[str] = Counter()

    # --- answering

    async def serve(self, peer: PeerID, stream: HalfCloseableStream) -> None:
        """Answer what a peer asks on its stream until that ends.

        Raises RemoteProtocolError, trio.TooSlowError.
        """
        turns = self._serving.setdefault(peer, trio.Semaphore(STREAMS_A_PEER))
        await self._turn(turns)
        try:
            buffer = bytearray()
            while body := await self._next_message(stream, buffer):
                self._spend(peer)
                answer = self._answer(peer, Message.decode(body))
                if answer is not None:
                    with trio.fail_after(IDLE):
                        await stream.send_all(answer.encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            turns.release()

    async def _turn(self, turns: trio.Semaphore) -> None:
        """Wait until a further stream of a peer may be served. Raises RemoteProtocolError."""
        if turns.statistics().tasks_waiting >= STREAMS_WAITING:
            most = STREAMS_A_PEER + STREAMS_WAITING
            raise RemoteProtocolError(f"more than {most} DHT streams at one time")
        with trio.move_on_after(TURN_WITHIN) as patience:
            await turns.acquire()
        if patience.cancelled_caught:
            raise RemoteProtocolError(f"more than {STREAMS_A_PEER} DHT streams for {TURN_WITHIN:g} s")

    def _spend(self, peer: PeerID) -> None:
        now = self._clock()
        left, since = self._allowance.get(peer, (float(BURST), now))
        left = min(left + (now - since) * MESSAGES_A_SECOND, BURST) - 1
        if len(self._allowance) > 10_000:
            self._allowance.clear()  # identities cost nothing; those who go on are counted anew
        self._allowance[peer] = (left, now)
        if left < 0:
            raise RemoteProtocolError(f"more than {MESSAGES_A_SECOND} DHT messages a second")

    def _answer(self, peer: PeerID, request: Message) -> Message | None:
        """None for what has no answer. Raises RemoteProtocolError."""
        kind, key = request.kind, request.key
        if kind is Kind.PING:
            return Message(kind=kind)
        if not key:
            raise RemoteProtocolError(f"a DHT request {kind.name} names no key")
        if kind is Kind.ADD_PROVIDER:
            for contact in request.providers:
                if contact.peer == peer and self.records.add(key, contact, self._clock()):
                    self.counters["records_taken"] += 1
            return None
        if kind is Kind.PUT_VALUE:
            raise RemoteProtocolError("values are not stored here")
        providers: tuple[Contact, ...] = ()
        if kind is Kind.GET_PROVIDERS:
            providers = tuple(self.records.get(key, self._clock()))
            if key in self._provided:
                providers = (Contact(self._own, tuple(self._addresses())), *providers)
        others = [contact for contact in self._known() if contact.peer != peer]
        return Message(kind=kind, key=key, closer=tuple(nearest(key, others, BUCKET)), providers=providers)

    # --- asking

    async def find(self, cid: CID, tell: Callable[[PeerID], None]) -> str:
        """Tell of peers that are said to have this; at last how many nodes were asked, in words.

        Cancelled: nothing is under way any more.
        """
        key, found = _key_of(cid), set[PeerID]()

        def hear(contacts: Iterable[Contact]) -> None:
            for contact in contacts:
                if contact.peer not in found and contact.peer != self._own:
                    found.add(contact.peer)
                    self._meet(contact.peer, contact.addresses)
                    tell(contact.peer)

        hear(self.records.get(key, self._clock()))

        def hear_answer(answer: Message) -> bool:
            hear(answer.providers)
            return len(found) >= ENOUGH

        answered = await self._search(Message(kind=Kind.GET_PROVIDERS, key=key), hear_answer)
        self.counters["searches"] += 1
        return f"the DHT ({'1 node' if len(answered) == 1 else f'{len(answered)} nodes'})"

    async def _search(self, request: Message, hear: Callable[[Message], bool]) -> list[Contact]:
        """Ask ever nearer nodes until the nearest have been asked or `hear` has enough; the nearest that
        answered."""
        known = {contact.peer: contact for contact in nearest(request.key, self._known(), BUCKET)}
        asked, answered = set[PeerID](), list[Contact]()
        under_way, enough, changed = 0, False, trio.Event()

        async def ask(contact: Contact) -> None:
            nonlocal under_way, enough, changed
            answer = await self._ask(contact, request)
            under_way -= 1
            if answer is None:
                known.pop(contact.peer, None)
            else:
                answered.append(contact)
                for closer in answer.closer:
                    if closer.peer not in asked and closer.peer != self._own and len(known) < 4 * MOST_ASKED:
                        known.setdefault(closer.peer, closer)
                enough = enough or hear(answer)
            changed.set()

        async with trio.open_nursery() as nursery:
            while not enough and len(asked) < MOST_ASKED:
                near = nearest(request.key, known.values(), BUCKET)
                waiting = [contact for contact in near if contact.peer not in asked]
                if not waiting and not under_way:
                    break
                for contact in waiting[: AT_ONCE - under_way]:
                    asked.add(contact.peer)
                    under_way += 1
                    nursery.start_soon(ask, contact)
                changed = trio.Event()
                if under_way:
                    await changed.wait()
            if enough:
                nursery.cancel_scope.cancel()
        return nearest(request.key, answered, BUCKET)

    def _known(self) -> list[Contact]:
        """The nodes that are known and have not lately failed to answer."""
        now = self._clock()
        known = {contact.peer: contact for contact in self._table.contacts()}
        for contact in usable(self._seeds()):
            if self._strangers.get(contact.peer, 0) <= now:
                known[contact.peer] = contact
        known.pop(self._own, None)
        return list(known.values())

    async def _ask(self, contact: Contact, request: Message) -> Message | None:
        """The answer of a node, None when it gave none."""

        async def talk(stream: HalfCloseableStream) -> Message:
            await stream.send_all(request.encode())
            body = await self._next_message(stream, bytearray())
            if body is None:
                raise RemoteProtocolError("it gave no answer")
            answer = Message.decode(body)
            with suppress(trio.BrokenResourceError):  # some reset what we end
                await stream.send_eof()  # not before: py-libp2p's own would not answer then
                await stream.receive_some()  # its end of stream: so both ends close
            return answer

        return await self._talk(contact, talk)

    async def _talk(
        self, contact: Contact, talk: Callable[[HalfCloseableStream], Awaitable[_T]]
    ) -> _T | None:
        """What came of talking to a node; None when something went wrong, and then it is left alone for
        some time, also by those who wait for their turn to talk to it."""
        failed = self._strangers.get(contact.peer)
        turns = self._asking.setdefault(contact.peer, trio.Semaphore(STREAMS_A_PEER))
        with trio.move_on_after(TURN_WITHIN) as patience:
            await turns.acquire()
        if patience.cancelled_caught:
            return None
        try:
            if self._strangers.get(contact.peer) != failed:
                return None
            return await self._talk_now(contact, talk)
        finally:
            turns.release()

    async def _talk_now(
        self, contact: Contact, talk: Callable[[HalfCloseableStream], Awaitable[_T]]
    ) -> _T | None:
        self._meet(contact.peer, contact.addresses)
        try:
            with trio.fail_after(ANSWER_WITHIN):
                async with await self._open_stream(contact.peer, self._protocol) as stream:
                    said = await talk(stream)
        except (
            PeerUnreachable,
            RemoteProtocolError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
        ):
            self.counters["nodes_silent"] += 1
            self._table.failed(contact.peer)
            if len(self._strangers) > 10_000:
                self._strangers.clear()
            self._strangers[contact.peer] = self._clock() + STRANGER_FOR
            return None
        self._table.answered(contact)
        return said

    async def _next_message(self, stream: HalfCloseableStream, buffer: bytearray) -> bytes | None:
        """None at the end of the stream. Raises RemoteProtocolError, trio.TooSlowError."""
        while (body := take_message(buffer)) is None:
            with trio.fail_after(IDLE):
                data = await stream.receive_some(_READ)
            if not data:
                return None
            buffer += data
        return body

    # --- providing

    def provide(self, cid: CID) -> None:
        """Let others know soon that this node has it, unless they know already."""
        key = _key_of(cid)
        known_since = self._provided.get(key)
        if known_since is not None and self._clock() - known_since < PROVIDE_AGAIN:
            return
        if len(self._due) >= WAITING:
            return
        self._due[key] = None
        self._wake.set()

    def disconnected(self, peer: PeerID) -> None:
        """A connection is gone, and perhaps with its peer what that was told."""
        if peer in self._told:
            self._told.discard(peer)
            self._lost_records = True

    async def run(self, roots: Roots) -> None:
        """Provide what is due, and again before it is forgotten, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_roots, roots)
            while True:
                await self._wake.wait()
                await trio.sleep(COALESCE)
                self._wake = trio.Event()
                batch = list(self._due)[:BATCH]
                if await self._provide(batch):
                    now = self._clock()
                    for key in batch:
                        self._due.pop(key, None)
                        self._provided[key] = now
                    self.counters["keys_provided"] += len(batch)
                    if self._due:
                        self._wake.set()
                    await trio.sleep(APART - COALESCE)
                elif batch:  # there was nobody to tell
                    await trio.sleep(ALONE)
                    self._wake.set()

    async def _watch_roots(self, roots: Roots) -> None:
        while True:
            wanted = {_key_of(root): root for root in await roots()}
            if self._lost_records:
                self._lost_records = False
                self._provided = dict.fromkeys(self._provided, -inf)
            self._provided = {key: when for key, when in self._provided.items() if key in wanted}
            for root in wanted.values():
                self.provide(root)
            await trio.sleep(LOOK_EVERY)

    async def _provide(self, keys: Sequence[bytes]) -> bool:
        """Tell the nodes nearest to each key; whether anybody was told anything."""
        targets: dict[PeerID, tuple[Contact, list[bytes]]] = {}
        known, connected = self._known(), self._connected()
        standing = [contact for contact in known if contact.peer in connected]
        few = len(known) <= BUCKET and bool(standing)  # a search asks them all
        for key in keys:
            near = nearest(key, standing if few else known, REPLICAS)
            if self._explore:
                near = await self._search(Message(kind=Kind.FIND_NODE, key=key), lambda answer: False)
            for contact in near[:REPLICAS]:
                targets.setdefault(contact.peer, (contact, []))[1].append(key)
            await trio.lowlevel.checkpoint()
        told = 0
        gate = trio.CapacityLimiter(AT_ONCE)

        async def inform(contact: Contact, about: list[bytes]) -> None:
            nonlocal told
            own = Contact(self._own, tuple(self._addresses()))
            messages = [Message(kind=Kind.ADD_PROVIDER, key=key, providers=(own,)) for key in about]

            async def talk(stream: HalfCloseableStream) -> bool:
                await stream.send_all(b"".join(message.encode() for message in messages))
                await stream.send_eof()
                with suppress(*(trio.BrokenResourceError,) if self._explore else ()):  # as above
                    while await stream.receive_some():
                        pass  # some repeat what they were told
                return True

            async with gate:
                if await self._talk(contact, talk):
                    told += 1
                    self._told.add(contact.peer)

        async with trio.open_nursery() as nursery:
            for contact, about in targets.values():
                nursery.start_soon(inform, contact, about)
        return told > 0


def _key_of(cid: CID) -> bytes:
    """What the DHT knows content by: the multihash, whatever the codec and version."""
    return cid.binary if cid.version == 0 else cid.binary[-34:]
