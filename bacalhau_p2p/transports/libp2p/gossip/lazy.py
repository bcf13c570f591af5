"""Lazy gossip: ids are offered to those outside of the mesh (IHAVE), who ask for what they miss (IWANT).

Everything that a neighbour can ask for, or make this node ask for, is bounded for each heartbeat, which comes
once a second.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.transports.libp2p.gossip.neighbour import MAX_ID_LENGTH, Neighbour
from bacalhau_p2p.transports.libp2p.gossip.recent import RecentMessages, SeenIds
from bacalhau_p2p.transports.libp2p.gossip.wire import Control, encode_control

OFFER_AFTER: Final = 0.1
"""Seconds that a message has to arrive along the mesh before its id is offered."""

MAX_OFFERED: Final = 1_000
"""Ids in one IHAVE that this node sends."""
MAX_IHAVES: Final = 10
"""IHAVE messages of one neighbour that are read, a heartbeat."""
MAX_IHAVE_IDS: Final = 5_000
"""Ids of these that are looked at."""
MAX_PROMISES: Final = 1_000
"""Messages that this node has asked one neighbour for and waits for."""
MAX_ASKED: Final = 10_000
"""The same of all neighbours."""
PROMISE_DURATION: Final = 3.0
"""Seconds in which a neighbour must send what it offered."""
MAX_BROKEN_PROMISES: Final = 10
"""Heartbeats in which a neighbour breaks promises before it is asked no more; halved every minute."""

MAX_IWANT_IDS: Final = 5_000
"""Ids that one neighbour may ask for, a heartbeat."""
MAX_SERVED_BYTES: Final = 8 * 1024 * 1024
"""Bytes that one neighbour gets when it asks, a heartbeat. The last message may go beyond."""

MAX_IDONTWANT_IDS: Final = 5_000
"""Ids of one neighbour's IDONTWANTs that are looked at, a heartbeat."""


class LazyGossip:
    """Offers and requests. `offence` records a neighbour that floods; `clock` gives seconds."""

    def __init__(
        self,
        seen: SeenIds,
        recent: RecentMessages,
        *,
        clock: Callable[[], float],
        offence: Callable[[PeerID, str], None],
        counters: Counter[str],
    ) -> None:
        self._seen = seen
        self._recent = recent
        self._clock = clock
        self._offence = offence
        self._counters = counters
        self._promises: OrderedDict[tuple[bytes, PeerID], float] = OrderedDict()  # and until when it may take
        self._asked: dict[bytes, list[Neighbour]] = {}

    # --- what this node says ------------------------------------------------------------------

    def offer(self, neighbour: Neighbour, topic: str, *, after: float = OFFER_AFTER) -> None:
        """Send the ids of recent messages that a neighbour has not shown to have. Each is offered once."""
        before = self._clock() - after
        ids = []
        for message_id, message in self._recent.newest_first():
            if message.topic != topic or message.since > before or not message.held_by(neighbour.peer):
                continue
            if not neighbour.unwanted(message_id):
                ids.append(message_id)
            if len(ids) == MAX_OFFERED:
                break
        if ids:
            control = Control()
            control.ihave.add(topicID=topic, messageIDs=ids)
            neighbour.put(encode_control(control))

    # --- what neighbours say ------------------------------------------------------------------

    def offered(
        self,
        neighbour: Neighbour,
        ihaves: Iterable[Any],
        topics: Collection[str],
        mesh: Collection[str] = (),
    ) -> Collection[str]:
        """A neighbour offers ids: ask for those that are new, unless another was asked just now. Returns the
        topics in which it has something new.

        In the topics of `mesh` it is a member, and asked whoever else was: it holds messages back since this
        node wishes it, and who promises them and sends nothing must not keep them away.
        """
        if neighbour.broken_promises >= MAX_BROKEN_PROMISES:
            return ()
        wanted: list[bytes] = []
        new: dict[str, None] = {}
        for ihave in ihaves:
            if not self._within(neighbour, "IHAVE", MAX_IHAVES):
                break
            if ihave.topicID not in topics:
                continue
            for message_id in ihave.messageIDs:
                if not self._within(neighbour, "IHAVE ids", MAX_IHAVE_IDS):
                    break
                if (recent := self._recent.get(message_id)) is not None:
                    recent.held_by(neighbour.peer)
                elif message_id not in self._seen and self._may_ask(
                    neighbour, message_id, is_member=ihave.topicID in mesh
                ):
                    wanted.append(message_id)
                    new[ihave.topicID] = None
        if wanted:
            control = Control()
            control.iwant.add(messageIDs=wanted)
            neighbour.put(encode_control(control))
            self._counters["broadcasts_asked_for"] += len(wanted)
        return new.keys()

    def asked(self, neighbour: Neighbour, iwants: Iterable[Any]) -> None:
        """A neighbour asks for messages."""
        for iwant in iwants:
            for message_id in iwant.messageIDs:
                if not self._within(neighbour, "IWANT ids", MAX_IWANT_IDS):
                    return
                message = self._recent.get(message_id)
                if message is None or not message.may_serve(neighbour.peer):
                    continue
                if neighbour.used["bytes"] >= MAX_SERVED_BYTES:
                    return
                neighbour.used["bytes"] += len(message.frame)
                if neighbour.put(message.frame):
                    self._counters["broadcasts_sent"] += 1

    def unwanted(self, neighbour: Neighbour, idontwants: Iterable[Any]) -> None:
        """A neighbour has messages already, or receives them."""
        for idontwant in idontwants:
            for message_id in idontwant.messageIDs:
                if not self._within(neighbour, "IDONTWANT ids", MAX_IDONTWANT_IDS):
                    return
                if (recent := self._recent.get(message_id)) is not None:
                    recent.held_by(neighbour.peer)
                else:
                    neighbour.note_unwanted(message_id)

    # --- promises -----------------------------------------------------------------------------

    def arrived(self, message_id: bytes) -> None:
        """A message came, maybe one that this node had asked for."""
        for neighbour in self._asked.pop(message_id, ()):
            del self._promises[message_id, neighbour.peer]
            neighbour.promises -= 1

    def heartbeat(self) -> None:
        """Count the promises that were broken, and forget old messages."""
        now = self._clock()
        self._recent.forget_old(now)
        broken: dict[PeerID, Neighbour] = {}
        while self._promises and (promise := next(iter(self._promises.items())))[1] <= now:
            neighbour = self._give_up(*promise[0])
            broken[neighbour.peer] = neighbour
        for neighbour in broken.values():  # one a heartbeat: messages that are lost are lost together
            self._counters["gossip_promises_broken"] += 1
            neighbour.broken_promises += 1

    def _may_ask(self, neighbour: Neighbour, message_id: bytes, *, is_member: bool) -> bool:
        """Whether to ask for a message; notes that it is asked for."""
        if (
            (message_id in self._asked and not is_member)
            or (message_id, neighbour.peer) in self._promises
            or len(self._promises) >= MAX_ASKED
            or neighbour.promises >= MAX_PROMISES
            or len(message_id) > MAX_ID_LENGTH
        ):
            return False
        self._promises[message_id, neighbour.peer] = self._clock() + PROMISE_DURATION
        self._asked.setdefault(message_id, []).append(neighbour)
        neighbour.promises += 1
        return True

    def _give_up(self, message_id: bytes, peer: PeerID) -> Neighbour:
        """Wait no more for what a neighbour promised. Returns the neighbour."""
        del self._promises[message_id, peer]
        asked = self._asked[message_id]
        neighbour = next(each for each in asked if each.peer == peer)
        asked.remove(neighbour)
        if not asked:
            del self._asked[message_id]
        neighbour.promises -= 1
        return neighbour

    def _within(self, neighbour: Neighbour, what: str, limit: int) -> bool:
        """Whether a neighbour may name one more; beyond is an offence, once a heartbeat."""
        neighbour.used[what] += 1
        count = neighbour.used[what]
        if count == limit + 1:
            self._counters["gossip_refused"] += 1
            self._offence(neighbour.peer, f"more than {limit} {what} within a second")
        return count <= limit
