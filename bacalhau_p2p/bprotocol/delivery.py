"""Reliable delivery: at least once on the wire, at most once in effect.

Pure: time is an argument, and there is no network. The sender repeats a message with back-off until it
is acknowledged or expires. The receiver detects repeats for as long as they can arrive, and acknowledges a
message only after `mark_processed`: when its effect is durable. Acknowledgements wait a moment for a
frame that goes to the same peer anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from heapq import heappop, heappush

from bacalhau_p2p.bprotocol.codec import Envelope, MessageID, encode_frame
from bacalhau_p2p.bprotocol.in_flight import (
    DURABLE_TO_ALL,
    DURABLE_TO_PEER,
    FLEETING_TO_ALL,
    FLEETING_TO_PEER,
    InFlightMessage,
    Shares,
)
from bacalhau_p2p.bprotocol.messages import MAX_REFUSALS, Refusal
from bacalhau_p2p.bprotocol.processed_ids import ProcessedIds
from bacalhau_p2p.model.base import PeerID, UnixSeconds

FIRST_REPEAT = 1.0
"""Seconds before a message is sent a second time. The interval doubles each time, with jitter."""
LONGEST_REPEAT = 15.0
"""Maximum seconds between repeats."""
ACK_DELAY = 0.02
"""Seconds that an acknowledgement waits for a frame to ride on."""
REMEMBERED = 26 * 3600.0
"""Seconds for which an id is remembered: longer than any message is repeated."""

MAX_WAITING_ACKS = 20_000
"""Acknowledgements that wait for one peer, which may have stopped reading. Further ones are left to the
repeats of the peer."""
MAX_ACKED_PEERS = 10_000
"""Peers for which acknowledgements wait."""


class Recognition(Enum):
    """Whether an arriving message is a repeat."""

    NEW = "new"
    PENDING = "pending"
    """A repeat of a message whose effect is not durable yet. Send nothing; the sender tries again."""
    PROCESSED = "processed"
    """A repeat of a message that was processed. Acknowledge it again."""


@dataclass(frozen=True)
class OutboxMessage:
    """A message to deliver, from before it is first sent until it is acknowledged or expires."""

    to: PeerID
    envelope: Envelope
    give_up_at: UnixSeconds

    @cached_property
    def frame(self) -> bytes:
        """The encoded envelope: what the store keeps and the transport sends."""
        return encode_frame(self.envelope)


@dataclass(frozen=True, slots=True)
class ProcessedMessage:
    """A received message whose effect is durable."""

    author: PeerID
    id: MessageID
    since: UnixSeconds


class Delivery:
    """One node's delivery state: messages in flight and messages seen.

    `rng` returns floats in [0, 1). `counters` count messages that are not repeated any more, or never were,
    because too many are in flight.
    """

    def __init__(self, rng: Callable[[], float], counters: Counter[str] | None = None) -> None:
        self._rng = rng
        self._in_flight: dict[MessageID, InFlightMessage] = {}
        self._durable = Shares(DURABLE_TO_PEER, DURABLE_TO_ALL)
        self._fleeting = Shares(FLEETING_TO_PEER, FLEETING_TO_ALL)
        self._heap: list[tuple[UnixSeconds, MessageID]] = []
        self._pending: set[tuple[PeerID, MessageID]] = set()
        """Messages whose effect is not durable yet, as many as the components have queued. None is forgotten:
        a repeat, which changes nothing, would be acknowledged before the effect of the first is durable."""
        self._processed = ProcessedIds()
        self._acks: dict[PeerID, list[MessageID]] = {}
        self._refusals: dict[PeerID, dict[MessageID, Refusal]] = {}
        self._acks_due: UnixSeconds | None = None
        self._finished: list[MessageID] = []
        self.given_up = 0
        self.counters = Counter[str]() if counters is None else counters

    # --- sending --------------------------------------------------------------------------

    def post(
        self,
        to: PeerID,
        envelope: Envelope,
        *,
        give_up_at: UnixSeconds,
        now: UnixSeconds,
        size: int = 0,
        durable: bool = True,
    ) -> None:
        """Track a message of `size` bytes that is sent for the first time now.

        Too many that are `durable` displace the oldest to the same peer, or to the peer with most. Others are
        not tracked then: they are sent only once.
        """
        message = InFlightMessage(to, envelope, give_up_at, now, FIRST_REPEAT, size, durable)
        if self._track(message):
            self._schedule(message, now)

    def resume(
        self, to: PeerID, envelope: Envelope, *, give_up_at: UnixSeconds, now: UnixSeconds, size: int = 0
    ) -> None:
        """Track a message from before a restart, which may or may not have been sent. It is due now."""
        if self._track(InFlightMessage(to, envelope, give_up_at, now, FIRST_REPEAT, size, durable=True)):
            heappush(self._heap, (now, envelope.id))

    def _track(self, message: InFlightMessage) -> bool:
        """Whether the message is in flight now."""
        if not message.durable and not self._fleeting.add_if_room(message):
            self.counters["not_repeated"] += 1
            return False
        self._in_flight[message.envelope.id] = message
        if message.durable:
            self._durable.add(message)
            while (displaced := self._durable.one_too_many(message)) is not None:
                self.counters["not_repeated"] += 1
                self._finish(displaced)
        return message.envelope.id in self._in_flight

    def _finish(self, message: InFlightMessage) -> None:
        del self._in_flight[message.envelope.id]
        (self._durable if message.durable else self._fleeting).remove(message)
        self._finished.append(message.envelope.id)

    def acknowledged(self, author: PeerID, ids: Iterable[bytes]) -> bool:
        """`author` acknowledged these messages. Ids of messages to other peers are ignored.

        Whether one of them was in flight to it.
        """
        known = False
        for raw in ids:
            message = self._in_flight.get(MessageID(raw))
            if message is not None and message.to == author:
                self._finish(message)
                known = True
        return known

    def in_flight_to(self, peer: PeerID, message_id: bytes) -> Envelope | None:
        """The message with this id, if it is in flight to this peer."""
        message = self._in_flight.get(MessageID(message_id))
        return message.envelope if message is not None and message.to == peer else None

    def waiting_for(self) -> set[PeerID]:
        """The peers that have messages to acknowledge."""
        return {message.to for message in self._in_flight.values()}

    def take_finished(self) -> list[MessageID]:
        """Ids that were acknowledged or expired since the last call. They no longer need to be stored."""
        finished, self._finished = self._finished, []
        return finished

    def peer_reconnected(self, peer: PeerID, now: UnixSeconds) -> None:
        """Everything in flight to this peer is due now."""
        for message in (*self._durable.to(peer), *self._fleeting.to(peer)):
            message.wait = FIRST_REPEAT
            message.due = now
            heappush(self._heap, (now, message.envelope.id))

    def repeats(self, now: UnixSeconds) -> list[tuple[PeerID, Envelope]]:
        """The messages to send again now."""
        again: list[tuple[PeerID, Envelope]] = []
        while self._heap and self._heap[0][0] <= now:
            due, message_id = heappop(self._heap)
            message = self._in_flight.get(message_id)
            if message is None or message.due != due:
                continue
            if now >= message.give_up_at:
                self._finish(message)
                self.given_up += 1
                continue
            again.append((message.to, message.envelope))
            self._schedule(message, now)
        return again

    @property
    def in_flight(self) -> int:
        """The number of messages that are neither acknowledged nor expired."""
        return len(self._in_flight)

    def _schedule(self, message: InFlightMessage, now: UnixSeconds) -> None:
        message.due = min(now + message.wait * (0.75 + self._rng() / 2), max(message.give_up_at, now))
        message.wait = min(message.wait * 2, LONGEST_REPEAT)
        heappush(self._heap, (message.due, message.envelope.id))

    # --- receiving ------------------------------------------------------------------------

    def recognise(self, author: PeerID, message_id: MessageID) -> Recognition:
        """Whether this message is a repeat. The first call remembers it."""
        key = (author, message_id)
        if key in self._pending:
            return Recognition.PENDING
        if self._processed.has(author, message_id):
            return Recognition.PROCESSED
        self._pending.add(key)
        return Recognition.NEW

    def mark_processed(self, author: PeerID, message_id: MessageID, now: UnixSeconds) -> None:
        """The effect of this message is durable: acknowledge it."""
        self._pending.discard((author, message_id))
        self.remember(author, message_id)
        waiting = self._acks.get(author)
        if waiting is None:
            if len(self._acks) >= MAX_ACKED_PEERS:
                return
            waiting = self._acks[author] = []
        if len(waiting) < MAX_WAITING_ACKS:
            waiting.append(message_id)
        if self._acks_due is None:
            self._acks_due = now + ACK_DELAY

    def refuse(self, author: PeerID, message_id: MessageID, reason: str, now: UnixSeconds) -> None:
        """This message cannot be read: tell its author, who would repeat it otherwise."""
        waiting = self._refusals.get(author)
        if waiting is None:
            if len(self._refusals) >= MAX_ACKED_PEERS:
                return
            waiting = self._refusals[author] = {}
        if len(waiting) < MAX_REFUSALS:
            waiting[message_id] = Refusal(id=message_id, reason=reason)
        if self._acks_due is None:
            self._acks_due = now + ACK_DELAY

    def remember(self, author: PeerID, message_id: MessageID) -> None:
        """This message was processed, now or before the node restarted."""
        self._processed.add(author, message_id)

    def take_acks(self, peer: PeerID) -> tuple[MessageID, ...]:
        """The acknowledgements that wait for a frame to `peer`. The caller must send them."""
        acks = tuple(self._acks.pop(peer, ()))
        if not (self._acks or self._refusals):
            self._acks_due = None
        return acks

    def take_refusals(self, peer: PeerID) -> tuple[Refusal, ...]:
        """The refusals that wait for a frame to `peer`. The caller must send them."""
        refusals = tuple(self._refusals.pop(peer, {}).values())
        if not (self._acks or self._refusals):
            self._acks_due = None
        return refusals

    def acks_due(self, now: UnixSeconds) -> list[PeerID]:
        """The peers whose acknowledgements have waited long enough."""
        if self._acks_due is None or now < self._acks_due:
            return []
        self._acks_due = None
        return list(self._acks.keys() | self._refusals.keys())

    def next_deadline(self) -> UnixSeconds | None:
        """When `repeats` or `acks_due` next return something, unless something else happens first."""
        while self._heap:
            due, message_id = self._heap[0]
            message = self._in_flight.get(message_id)
            if message is not None and message.due == due:
                break
            heappop(self._heap)
        repeat = self._heap[0][0] if self._heap else None
        if repeat is None or self._acks_due is None:
            return self._acks_due if repeat is None else repeat
        return min(repeat, self._acks_due)
