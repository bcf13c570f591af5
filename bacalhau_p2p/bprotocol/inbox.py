"""Inbound messages: rate-limited, decoded, deduplicated and handed to the components that listen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.delivery import Delivery, Recognition
from bacalhau_p2p.bprotocol.messages import BROADCAST_CARRIERS, Ack, Carrier, Message, topic
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


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message and its authenticated author. With an `id` its sender waits for an acknowledgement."""

    author: PeerID
    message: Message
    id: MessageID | None = None


Listener = Callable[[Arrival], None]
"""Takes a message; must return at once."""


class Inbox:
    """What arrives at one node. `mark_processed` acknowledges a message; `counters` count what is dropped."""

    def __init__(
        self,
        own_peer: PeerID,
        network: str,
        delivery: Delivery,
        *,
        clock: Callable[[], UnixSeconds],
        mark_processed: Callable[[Arrival], None],
        counters: Counter[str],
    ) -> None:
        self._own_peer = own_peer
        self._mail_topic = topic(network, Carrier.MAIL)
        self._delivery = delivery
        self._clock = clock
        self._mark_processed = mark_processed
        self._counters = counters
        self._listeners: dict[str, list[Listener]] = {}
        self._limits = RateLimits[PeerID](MAX_MESSAGES_PER_SECOND, MAX_MESSAGES_PER_SECOND * RATE_WINDOW)
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
        except RemoteProtocolError as error:
            self._drop_malformed(author, error)
            return
        if envelope is None or envelope.to != self._own_peer:
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
            self._drop_malformed(author, error)
            return
        for envelope in envelopes:
            if topic_name == self._mail_topic:
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
        self._counters["over_rate"] += 1
        return False

    def _drop_malformed(self, author: PeerID, error: RemoteProtocolError) -> None:
        self._counters["malformed"] += 1
        log.debug("message_dropped", author=author, reason=str(error))
