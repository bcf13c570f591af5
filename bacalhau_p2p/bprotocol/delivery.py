"""Directed messages arrive at least once, and change something at most once.

Pure: no clock, no network. The sender repeats a message with back-off until its id is acknowledged or
its purpose is over. The receiver recognises repeats for as long as they can come, and acknowledges a
message only when its owner has said `settle`: when what it changed is kept. Acknowledgements wait a
moment for a frame that goes anyway.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from heapq import heappop, heappush

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID, encode_frame
from bacalhau_p2p.model.base import PeerID, UnixSeconds

FIRST_REPEAT = 1.0
"""Seconds before a message is sent a second time; doubles each time, with jitter."""
LONGEST_REPEAT = 15.0
"""Seconds between repeats at most."""
ACK_DELAY = 0.02
"""Seconds that an acknowledgement waits for a frame to ride on."""
REMEMBERED = 26 * 3600.0
"""Seconds for which an id is recognised: longer than any message is repeated."""
REMEMBERED_IDS = 200_000
"""Ids remembered at most, over all authors; the oldest settled ones go first."""


class Recognition(Enum):
    """What an arriving message is."""

    NEW = "new"
    PENDING = "pending"
    """A repeat of one whose effect is not kept yet: say nothing, the sender will try again."""
    SETTLED = "settled"
    """A repeat of one that is dealt with: acknowledge it again."""


@dataclass(frozen=True)
class OutboxMessage:
    """A message that is to be delivered, from before it is sent until it is acknowledged or given up."""

    to: PeerID
    envelope: Envelope
    give_up_at: UnixSeconds

    @cached_property
    def frame(self) -> bytes:
        """The envelope in bytes, which are kept and sent."""
        return encode_frame(self.envelope)


@dataclass(frozen=True, slots=True)
class ProcessedMessage:
    """A message that was dealt with."""

    author: PeerID
    id: MessageID
    since: UnixSeconds


@dataclass(slots=True)
class _Underway:
    to: PeerID
    envelope: Envelope
    give_up_at: UnixSeconds
    due: UnixSeconds
    wait: float


class Delivery:
    """The delivery of one node: what it has under way, and what it has seen. `rng` gives [0, 1)."""

    def __init__(self, rng: Callable[[], float]) -> None:
        self._rng = rng
        self._underway: dict[MessageID, _Underway] = {}
        self._heap: list[tuple[UnixSeconds, MessageID]] = []
        self._seen: OrderedDict[tuple[PeerID, MessageID], tuple[UnixSeconds, bool]] = OrderedDict()
        self._acks: defaultdict[PeerID, list[MessageID]] = defaultdict(list)
        self._acks_due: UnixSeconds | None = None
        self._finished: list[MessageID] = []
        self.given_up = 0

    # --- sending --------------------------------------------------------------------------

    def post(self, to: PeerID, envelope: Envelope, *, give_up_at: UnixSeconds, now: UnixSeconds) -> None:
        """Take charge of a message that is being sent for the first time now."""
        under = _Underway(to, envelope, give_up_at, now, FIRST_REPEAT)
        self._underway[envelope.id] = under
        self._delay(under, now)

    def acknowledged(self, author: PeerID, ids: Iterable[bytes]) -> None:
        """`author` has dealt with these. Ids that went to somebody else are ignored."""
        for raw in ids:
            under = self._underway.get(MessageID(raw))
            if under is not None and under.to == author:
                del self._underway[under.envelope.id]
                self._finished.append(under.envelope.id)

    def resume(self, to: PeerID, envelope: Envelope, *, give_up_at: UnixSeconds, now: UnixSeconds) -> None:
        """Take charge of a message that an earlier life of this node may or may not have sent: it is due."""
        self._underway[envelope.id] = _Underway(to, envelope, give_up_at, now, FIRST_REPEAT)
        heappush(self._heap, (now, envelope.id))

    def take_finished(self) -> list[MessageID]:
        """Ids that were acknowledged or given up since the last call: nobody need keep them."""
        finished, self._finished = self._finished, []
        return finished

    def peer_is_back(self, peer: PeerID, now: UnixSeconds) -> None:
        """Everything under way to this peer is due at once."""
        for under in self._underway.values():
            if under.to == peer:
                under.wait = FIRST_REPEAT
                under.due = now
                heappush(self._heap, (now, under.envelope.id))

    def repeats(self, now: UnixSeconds) -> list[tuple[PeerID, Envelope]]:
        """What is to be sent again now."""
        again: list[tuple[PeerID, Envelope]] = []
        while self._heap and self._heap[0][0] <= now:
            due, message_id = heappop(self._heap)
            under = self._underway.get(message_id)
            if under is None or under.due != due:
                continue
            if now >= under.give_up_at:
                del self._underway[message_id]
                self._finished.append(message_id)
                self.given_up += 1
                continue
            again.append((under.to, under.envelope))
            self._delay(under, now)
        return again

    @property
    def underway(self) -> int:
        """How many messages are neither acknowledged nor given up."""
        return len(self._underway)

    def _delay(self, under: _Underway, now: UnixSeconds) -> None:
        under.due = min(now + under.wait * (0.75 + self._rng() / 2), max(under.give_up_at, now))
        under.wait = min(under.wait * 2, LONGEST_REPEAT)
        heappush(self._heap, (under.due, under.envelope.id))

    # --- receiving ------------------------------------------------------------------------

    def recognise(self, author: PeerID, message_id: MessageID, now: UnixSeconds) -> Recognition:
        """Whether this message was here before; from now on it was."""
        key = (author, message_id)
        known = self._seen.get(key)
        if known is None:
            self._seen[key] = (now, False)
            self._forget(now)
            return Recognition.NEW
        return Recognition.SETTLED if known[1] else Recognition.PENDING

    def settle(self, author: PeerID, message_id: MessageID, now: UnixSeconds) -> None:
        """What this message changed is kept: it may be acknowledged."""
        self._seen[(author, message_id)] = (now, True)
        self._acks[author].append(message_id)
        if self._acks_due is None:
            self._acks_due = now + ACK_DELAY

    def remember(self, author: PeerID, message_id: MessageID, since: UnixSeconds) -> None:
        """An earlier life of this node dealt with this message."""
        self._seen[(author, message_id)] = (since, True)

    def take_acks(self, peer: PeerID) -> tuple[MessageID, ...]:
        """The acknowledgements that wait for a frame to `peer`; the caller sends them."""
        acks = tuple(self._acks.pop(peer, ()))
        if not self._acks:
            self._acks_due = None
        return acks

    def acks_due(self, now: UnixSeconds) -> list[PeerID]:
        """Peers for whom acknowledgements have waited long enough."""
        if self._acks_due is None or now < self._acks_due:
            return []
        self._acks_due = None
        return list(self._acks)

    def next_deadline(self) -> UnixSeconds | None:
        """When `repeats` or `acks_due` have something, if nothing happens before."""
        while self._heap:
            due, message_id = self._heap[0]
            under = self._underway.get(message_id)
            if under is not None and under.due == due:
                break
            heappop(self._heap)
        repeat = self._heap[0][0] if self._heap else None
        if repeat is None or self._acks_due is None:
            return self._acks_due if repeat is None else repeat
        return min(repeat, self._acks_due)

    def _forget(self, now: UnixSeconds) -> None:
        while self._seen:
            key, (since, _) = next(iter(self._seen.items()))
            if len(self._seen) <= REMEMBERED_IDS and now - since <= REMEMBERED:
                return
            del self._seen[key]
