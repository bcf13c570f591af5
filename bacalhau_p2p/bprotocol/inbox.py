"""Inbound messages: decoded, deduplicated and handed to the components that listen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID, RefusedEnvelope, UnknownKind
from bacalhau_p2p.bprotocol.delivery import Delivery, Recognition
from bacalhau_p2p.bprotocol.messages import (
    BROADCAST_CARRIERS,
    SENT_ONCE,
    Ack,
    Carrier,
    ExecutionFailed,
    JobAnnounced,
    Message,
    ResultProposed,
    ResultPublished,
    topic,
)
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import JobID, PeerID, UnixSeconds
from bacalhau_p2p.runtime.events import BroadcastEvent
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.transports.budgets import Budgets
from bacalhau_p2p.transports.interface import Broadcast

log = get_logger(__name__)

_ANNOUNCED = JobAnnounced.kind
_RESULTS = frozenset({ResultProposed.kind, ResultPublished.kind})


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message and its authenticated author. With an `id` its sender waits for an acknowledgement."""

    author: PeerID
    message: Message
    id: MessageID | None = None
    neighbour: PeerID | None = field(default=None, compare=False)
    """The connected peer that handed over the broadcast that it came with; None if its author did."""


Listener = Callable[[Arrival], None]
"""Takes a message; must return at once."""
PassesOver = Callable[[PeerID, JobID, float], bool]
"""Given the author of an announcement, its job and its chance."""


class Inbox:
    """What arrives at one node.

    `mark_processed` acknowledges a message, `refuse` tells its author that it cannot be read; `counters` and
    `budgets` count what is dropped.
    """

    def __init__(
        self,
        own_peer: PeerID,
        network: str,
        delivery: Delivery,
        *,
        budgets: Budgets,
        clock: Callable[[], UnixSeconds],
        mark_processed: Callable[[Arrival], None],
        refuse: Callable[[PeerID, MessageID, str], None],
        counters: Counter[str],
    ) -> None:
        self._own_peer = own_peer
        self._mail_topic = topic(network, Carrier.MAIL)
        self._delivery = delivery
        self._clock = clock
        self._mark_processed = mark_processed
        self._refuse = refuse
        self._counters = counters
        self._listeners: dict[str, list[Listener]] = {}
        self._budgets = budgets
        self._is_for_others: PassesOver = lambda author, job_id, chance: False
        self.received: Counter[str] = Counter()
        """Messages of other nodes that were delivered, by kind."""
        self.acknowledged = BroadcastEvent()
        """Fires when a peer acknowledges messages."""

    def listen(self, kinds: Iterable[type[Message]], listener: Listener) -> None:
        """Hand messages of these kinds to `listener`, from now on."""
        for kind in kinds:
            self._listeners.setdefault(kind.kind, []).append(listener)

    def pass_over(self, is_for_others: PassesOver) -> None:
        """From now on, drop announcements of which this says that this node has nothing to do with them."""
        self._is_for_others = is_for_others

    def receive_frame(self, author: PeerID, payload: bytes) -> None:
        """A direct frame arrived."""
        try:
            envelope = codec.decode_frame(payload)
        except RefusedEnvelope as refused:
            self._receive_refused(author, refused)
            return
        except RemoteProtocolError as error:
            self.drop(author, "malformed", str(error))
            return
        if envelope.to != self._own_peer:
            self._counters["unheard"] += 1
            return
        self.receive_envelope(author, envelope)

    def receive_broadcast(self, broadcast: Broadcast) -> Iterator[None]:
        """A broadcast arrived; each step handles one of its envelopes.

        Mail to this node counts as direct; mail to others is ignored.
        """
        author, mail = broadcast.author, broadcast.topic == self._mail_topic
        try:
            items = codec.items_of(broadcast.payload)
        except RemoteProtocolError as error:
            self.drop(author, "malformed", str(error))
            return
        for item in items:
            if not mail and self._passes_over(author, item):
                yield
                continue
            envelope = codec.accepted_or_refused(item, len(broadcast.payload))
            if isinstance(envelope, RefusedEnvelope):
                if not mail or envelope.to == self._own_peer:
                    self._receive_refused(author, envelope)
            elif mail:
                if envelope.to == self._own_peer:
                    self.receive_envelope(author, envelope)
            elif envelope.message.carrier in BROADCAST_CARRIERS:
                self.deliver(Arrival(author, envelope.message, neighbour=broadcast.neighbour))
            else:
                self._counters["unheard"] += 1
            yield

    def _passes_over(self, author: PeerID, item: object) -> bool:
        """Whether an item of a broadcast is an announcement that this node has nothing to do with. Most are:
        nothing else of it is looked at."""
        drawn = codec.chance_of(item)
        if drawn is None or not self._is_for_others(author, *drawn):
            return False
        if author != self._own_peer:
            self.received[_ANNOUNCED] += 1
        return True

    def receive_envelope(self, author: PeerID, envelope: Envelope) -> None:
        """An envelope addressed to this node arrived: directly, by mail, or from this node itself."""
        message = envelope.message
        if envelope.acks:
            self.receive_acks(author, envelope.acks)
        if isinstance(message, Ack):
            self._receive_refusals(author, message)
            self.receive_acks(author, message.ids)
        elif message.carrier in SENT_ONCE:
            self.deliver(Arrival(author, message))
        elif message.carrier is Carrier.DIRECT:
            match self._delivery.recognise(author, envelope.id):
                case Recognition.NEW:
                    self.deliver(Arrival(author, message, envelope.id))
                case Recognition.PROCESSED:
                    self._counters["repeats"] += 1
                    self._mark_processed(Arrival(author, message, envelope.id))
                case Recognition.PENDING:
                    self._counters["repeats"] += 1
        else:
            self._counters["unheard"] += 1

    def deliver(self, arrival: Arrival) -> None:
        """Give a message to the listeners of its kind."""
        if arrival.author != self._own_peer:
            self.received[arrival.message.kind] += 1
        listeners = self._listeners.get(arrival.message.kind)
        if not listeners:
            # No component will act on it: acknowledge it, or the sender repeats it for hours.
            self._counters["unheard"] += 1
            self._mark_processed(arrival)
            return
        for listener in listeners:
            listener(arrival)

    def receive_acks(self, author: PeerID, ids: Sequence[bytes]) -> None:
        """`author` acknowledged these messages."""
        if self._delivery.acknowledged(author, ids):
            self._budgets.answered(author)
        self.acknowledged.fire()

    def drop(self, author: PeerID, counter: str, reason: str) -> None:
        """A message was dropped, and its author is to blame."""
        self._counters[counter] += 1
        if counter == "malformed":
            self._budgets.malformed(author, reason)
        else:
            self._budgets.offences.note(author, counter, reason)
        log.debug("message_dropped", author=author, reason=reason)

    def _receive_refused(self, author: PeerID, refused: RefusedEnvelope) -> None:
        """An envelope arrived that this version cannot read: tell its author, if it waits for an answer."""
        if isinstance(refused, UnknownKind):
            self._counters["unheard"] += 1
        else:
            self.drop(author, "malformed", str(refused))
        if refused.id is None or refused.to != self._own_peer or refused.kind == Ack.kind:
            return
        self._refuse(author, refused.id, str(refused))
        if refused.kind in _RESULTS and refused.job is not None and refused.execution is not None:
            # Without its result the execution would stay as it is until the job's time is over.
            reason = f"its node sent an invalid {refused.kind}: {refused}"
            failed = ExecutionFailed(job_id=refused.job, execution_id=refused.execution, reason=reason)
            if self._delivery.recognise(author, refused.id) is Recognition.NEW:
                self.deliver(Arrival(author, failed, refused.id))

    def _receive_refusals(self, author: PeerID, ack: Ack) -> None:
        for refusal in ack.refused:
            if (envelope := self._delivery.in_flight_to(author, refusal.id)) is not None:
                self._counters["refused_by_peer"] += 1
                kind = envelope.message.kind
                log.warning("message_refused", peer=author, kind=kind, reason=refusal.reason)
