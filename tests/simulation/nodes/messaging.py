"""How one process of a simulated node sends and receives: the real delivery over the simulated network."""

from __future__ import annotations

from collections.abc import Callable

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.delivery import Delivery, OutboxMessage, Recognition
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.bprotocol.messages import Carrier, Message
from bacalhau_p2p.model.base import PeerID
from tests.simulation.nodes.network import Network
from tests.simulation.nodes.observer import Observer
from tests.simulation.nodes.process import Process
from tests.simulation.nodes.store import SimulatedStore

CLEAN_UP_DELAY = 1.0
"""Seconds after which acknowledged messages leave the outbox, if no commit removes them before."""


class Messaging:
    """Ends with its process."""

    def __init__(
        self,
        process: Process,
        network: Network,
        observer: Observer,
        *,
        rng: Callable[[], float],
        new_message_id: Callable[[], MessageID],
        receive: Callable[[Arrival], None],
        clean_up: Callable[[], None],
    ) -> None:
        """`receive` is given each new message. `clean_up` is called some time after messages are finished; it
        removes them from the outboxes."""
        self._process = process
        self._timeline = process.timeline
        self._network = network
        self._observer = observer
        self._delivery = Delivery(rng)
        self._new_message_id = new_message_id
        self._receive = receive
        self._clean_up = clean_up
        self._finished: list[MessageID] = []
        self._wakes_at: float | None = None

    def resume(self, store: SimulatedStore, now: float) -> None:
        """Go on with what an earlier process left in the outbox and inbox of this store."""
        for message in store.outbox.values():
            self._delivery.resume(message.to, message.envelope, give_up_at=message.give_up_at, now=now)
        for author, message_id in store.inbox:
            self._delivery.remember(author, message_id)

    # --- sending --------------------------------------------------------------------------------

    def compose(self, to: PeerID, message: Message, give_up_at: float) -> OutboxMessage:
        """A message with an id of its own."""
        return OutboxMessage(to, self._envelope(message, to), give_up_at)

    def dispatch(self, message: OutboxMessage) -> None:
        """Send a message, and repeat it if its carrier is direct."""
        if message.envelope.message.carrier is Carrier.DIRECT:
            self._observer.sent(message.envelope.message.kind)
            now = self._process.clock()
            self._delivery.post(message.to, message.envelope, give_up_at=message.give_up_at, now=now)
            self.set_alarm()
        self._transmit(message.to, message.envelope)

    def broadcast(self, message: Message) -> None:
        """To everybody, this node included."""
        envelope = self._envelope(message, None)
        self._timeline.note(self._process.peer, "broadcast", None, message)
        self._network.broadcast(self._process.peer, envelope)
        self.deliver_here(message)

    def deliver_here(self, message: Message) -> None:
        """A broadcast of this node that only itself hears."""
        self._receive(Arrival(self._process.peer, message))

    def send_once(self, to: PeerID, message: Message) -> None:
        """Without repeats."""
        self._transmit(to, self._envelope(message, to))

    def acknowledge(self, arrival: Arrival) -> None:
        """What this message changed is committed."""
        assert arrival.id is not None
        self._delivery.mark_processed(arrival.author, arrival.id, self._process.clock())
        self.set_alarm()

    def take_finished(self, store: SimulatedStore) -> list[MessageID]:
        """Messages in the outbox of this store that are acknowledged or given up."""
        self._finished += self._delivery.take_finished()
        mine = [message_id for message_id in self._finished if message_id in store.outbox]
        self._finished = [message_id for message_id in self._finished if message_id not in store.outbox]
        return mine

    def _envelope(self, message: Message, to: PeerID | None) -> Envelope:
        return Envelope(id=self._new_message_id(), message=message, to=to, sent=self._process.clock())

    def _transmit(self, to: PeerID, envelope: Envelope) -> None:
        own = self._process.peer
        if to == own:
            self._process.at(self._timeline.now, lambda: self.receive(to, envelope))
            return
        if acks := self._delivery.take_acks(to):
            self._network.send(own, to, self._envelope(say.Ack(ids=acks), to))
        self._network.send(own, to, envelope)

    # --- receiving ------------------------------------------------------------------------------

    def receive(self, author: PeerID, envelope: Envelope) -> None:
        """A message has arrived."""
        if self._process.postpones(lambda: self.receive(author, envelope)):
            return
        message = envelope.message
        if isinstance(message, say.Ack):
            self._observer.acknowledged(self._process.peer, author, message.ids)
            self._delivery.acknowledged(author, message.ids)
            self._clean_up_later()
        elif message.carrier is not Carrier.DIRECT:
            self._receive(Arrival(author, message))
        else:
            match self._delivery.recognise(author, envelope.id):
                case Recognition.NEW:
                    self._receive(Arrival(author, message, envelope.id))
                case Recognition.PROCESSED:
                    self.acknowledge(Arrival(author, message, envelope.id))
                case Recognition.PENDING:
                    pass

    def peer_connected(self, peer: PeerID) -> None:
        """Messages to this peer are sent again at once."""
        self._delivery.peer_reconnected(peer, self._process.clock())
        self.set_alarm()

    # --- repeats and acknowledgements that are due ------------------------------------------------

    def set_alarm(self) -> None:
        """Wake when the delivery has something to do."""
        due = self._delivery.next_deadline()
        if due is None:
            return
        when = max(self._timeline.now, self._process.world_time(due))
        if self._wakes_at is None or when < self._wakes_at:
            self._wakes_at = when
            self._process.at(when, lambda: self._alarm(when, due))

    def _alarm(self, when: float, due: float) -> None:
        if self._wakes_at != when:
            return
        if self._timeline.now < (later := self._process.busy_until):
            self._wakes_at = later
            self._process.at(later, lambda: self._alarm(later, due))
            return
        self._wakes_at = None
        self._process.advance_clock(due)
        now = self._process.clock()
        for to, envelope in self._delivery.repeats(now):
            self._timeline.repeats += 1
            self._transmit(to, envelope)
        for peer in self._delivery.acks_due(now):
            self._send_acks(peer)
        self._clean_up_later()
        self.set_alarm()

    def _send_acks(self, peer: PeerID) -> None:
        if not (ids := self._delivery.take_acks(peer)):
            return
        if peer == self._process.peer:
            self._observer.acknowledged(peer, peer, ids)
            self._delivery.acknowledged(peer, ids)
        else:
            self._network.send(self._process.peer, peer, self._envelope(say.Ack(ids=ids), peer))

    def _clean_up_later(self) -> None:
        known = bool(self._finished)
        self._finished += self._delivery.take_finished()
        if self._finished and not known:
            self._process.at(self._timeline.now + CLEAN_UP_DELAY, self._clean_up_now)

    def _clean_up_now(self) -> None:
        self._clean_up()
        self._finished.clear()
