"""Inbound messages: rate-limited, decoded, deduplicated and handed to the components that listen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID, RefusedEnvelope, UnknownKind
from bacalhau_p2p.bprotocol.delivery import Delivery, Recognition
from bacalhau_p2p.bprotocol.messages import (
    BROADCAST_CARRIERS,
    Ack,
    Carrier,
    ExecutionFailed,
    Message,
    ResultProposed,
    ResultPublished,
    topic,
)
from bacalhau_p2p.bprotocol.offences import Offences
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.runtime.events import BroadcastEvent
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.rate_limit import RateLimits

log = get_logger(__name__)

MAX_MESSAGES_PER_SECOND = 5_000
"""Frames and broadcasts accepted from one peer, averaged over RATE_WINDOW seconds."""
RATE_WINDOW = 4.0
"""Seconds."""
_RESULTS = frozenset({ResultProposed.kind, ResultPublished.kind})


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message and its authenticated author. With an `id` its sender waits for an acknowledgement."""

    author: PeerID
    message: Message
    id: MessageID | None = None


Listener = Callable[[Arrival], None]
"""Takes a message; must return at once."""


class Inbox:
    """What arrives at one node.

    `mark_processed` acknowledges a message, `refuse` tells its author that it cannot be read; `counters` and
    `offences` count what is dropped.
    """

    def __init__(
        self,
        own_peer: PeerID,
        network: str,
        delivery: Delivery,
        *,
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
        self._limits = RateLimits[PeerID](MAX_MESSAGES_PER_SECOND, MAX_MESSAGES_PER_SECOND * RATE_WINDOW)
        self.offences = Offences()
        self.acknowledged = BroadcastEvent()
        """Fires when a peer acknowledges messages."""

    def listen(self, kinds: Iterable[type[Message]], listener: Listener) -> None:
        """Hand messages of these kinds to `listener`, from now on."""
        for kind in kinds:
            self._listeners.setdefault(kind.kind, []).append(listener)

    def forget(self, peer: PeerID) -> None:
        """The peer disconnected; its rate limit is reset."""
        self._limits.forget(peer)

    def receive_frame(self, author: PeerID, payload: bytes) -> None:
        """A direct frame arrived."""
        if not self._within_rate(author):
            return
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

    def receive_broadcast(self, author: PeerID, topic_name: str, payload: bytes) -> None:
        """A broadcast arrived. Mail to this node counts as direct; mail to others is ignored."""
        if not self._within_rate(author):
            return
        try:
            envelopes = codec.decode_broadcast(payload)
        except RemoteProtocolError as error:
            self.drop(author, "malformed", str(error))
            return
        for envelope in envelopes:
            if isinstance(envelope, RefusedEnvelope):
                if topic_name != self._mail_topic or envelope.to == self._own_peer:
                    self._receive_refused(author, envelope)
            elif topic_name == self._mail_topic:
                if envelope.to == self._own_peer:
                    self.receive_envelope(author, envelope)
            elif envelope.message.carrier in BROADCAST_CARRIERS:
                self.deliver(Arrival(author, envelope.message))
            else:
                self._counters["unheard"] += 1

    def receive_envelope(self, author: PeerID, envelope: Envelope) -> None:
        """An envelope addressed to this node arrived: directly, by mail, or from this node itself."""
        message = envelope.message
        if envelope.acks:
            self.receive_acks(author, envelope.acks)
        if isinstance(message, Ack):
            self._receive_refusals(author, message)
            self.receive_acks(author, message.ids)
        elif message.carrier is Carrier.BEST_EFFORT:
            self.deliver(Arrival(author, message))
        elif message.carrier is Carrier.DIRECT:
            match self._delivery.recognise(author, envelope.id, self._clock()):
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
        self._delivery.acknowledged(author, ids)
        self.acknowledged.fire()

    def _within_rate(self, author: PeerID) -> bool:
        if self._limits.take(author, self._clock()):
            return True
        self.drop(author, "over_rate", f"more than {MAX_MESSAGES_PER_SECOND} messages a second")
        return False

    def drop(self, author: PeerID, counter: str, reason: str) -> None:
        """A message was dropped, and its author is to blame."""
        self._counters[counter] += 1
        self.offences.note(author, counter, reason, self._clock())
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
            if self._delivery.recognise(author, refused.id, self._clock()) is Recognition.NEW:
                self.deliver(Arrival(author, failed, refused.id))

    def _receive_refusals(self, author: PeerID, ack: Ack) -> None:
        for refusal in ack.refused:
            if (envelope := self._delivery.in_flight_to(author, refusal.id)) is not None:
                self._counters["refused_by_peer"] += 1
                kind = envelope.message.kind
                log.warning("message_refused", peer=author, kind=kind, reason=refusal.reason)
