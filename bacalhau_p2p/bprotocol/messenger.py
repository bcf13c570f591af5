"""bprotocol over a transport: the messages that one node sends and receives.

A component first makes the effect of a message durable and then calls `mark_processed`; only then the
message is acknowledged to its sender. Messages of this node to itself do not use the network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import trio
from trio import TaskStatus

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.broadcasts import BroadcastQueue, Mail
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.delivery import Delivery, OutboxMessage, ProcessedMessage
from bacalhau_p2p.bprotocol.inbox import Arrival, Inbox, Listener, PassesOver
from bacalhau_p2p.bprotocol.lanes import Lanes
from bacalhau_p2p.bprotocol.messages import BROADCAST_CARRIERS, MAX_ACK_IDS, Ack, Carrier, Message, topic
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.runtime.alarm import Alarm
from bacalhau_p2p.transports.interface import (
    Broadcast,
    DirectFrame,
    PeerConnected,
    PeerDisconnected,
    Transport,
    Unfinished,
)
from bacalhau_p2p.transports.offences import LOG_INTERVAL

MAX_ACK_CARRIER = 256 * 1024
"""Bytes of the longest frame that takes acknowledgements along."""
LONGEST_TURN = 0.0005
"""Seconds of processor time for a part of a broadcast, before other peers have their turn."""

ConnectionListener = Callable[[PeerID, bool], None]
"""Called when a peer connects (True) or disconnects (False)."""


class Messenger:
    """Open one per node with `run` in a nursery; everything else returns at once."""

    def __init__(
        self,
        transport: Transport,
        *,
        network: str,
        clock: Callable[[], UnixSeconds],
        rng: Callable[[], float],
        new_message_id: Callable[[], MessageID],
    ) -> None:
        self.counters: Counter[str] = Counter()
        """What went wrong and was survived: `malformed`, `unheard`, `unreachable`, `refused_by_peer`,
        `not_repeated`."""
        self.sent: Counter[str] = Counter()
        """Messages to other nodes by kind, each broadcast once and each repeat again."""
        self.processor = transport.budgets.processor
        """The processor time of this thread, in seconds."""
        self._transport = transport
        self._clock = clock
        self._new_message_id = new_message_id
        self._delivery = Delivery(rng, self.counters)
        self._alarm = Alarm(clock)
        self._topics = [topic(network, carrier) for carrier in (*BROADCAST_CARRIERS, Carrier.MAIL)]
        self._inbox = Inbox(
            transport.peer_id,
            network,
            self._delivery,
            budgets=transport.budgets,
            clock=clock,
            mark_processed=self.mark_processed,
            refuse=self._refuse,
            counters=self.counters,
        )
        self._broadcasts = {
            carrier: BroadcastQueue(transport, topic(network, carrier)) for carrier in BROADCAST_CARRIERS
        }
        self._mail = Mail(transport, topic(network, Carrier.MAIL), self.counters)
        self._lanes = Lanes(
            transport, with_acks=self._with_acks, unreachable=self._mail.put, counters=self.counters
        )
        self._connection_listeners: list[ConnectionListener] = []
        self._owners: dict[MessageID, int] = {}
        self._finished: dict[int, list[MessageID]] = {}

    # --- for components ---------------------------------------------------------------------

    def listen(self, kinds: Iterable[type[Message]], listener: Listener) -> None:
        """Hand messages of these kinds to `listener`, from now on."""
        self._inbox.listen(kinds, listener)

    def pass_over(self, is_for_others: PassesOver) -> None:
        """From now on, drop announcements of which this says that this node has nothing to do with them."""
        self._inbox.pass_over(is_for_others)

    def watch_connections(self, listener: ConnectionListener) -> None:
        """Call `listener` for every peer that connects or disconnects, from now on."""
        self._connection_listeners.append(listener)

    def watch_cut_offs(self, listener: Callable[[PeerID], None]) -> None:
        """Call `listener` for every peer that is cut off since it exceeded its budget, from now on."""
        self._transport.budgets.watch_cut_offs(listener)

    def compose(self, to: PeerID, message: Message, give_up_at: UnixSeconds) -> OutboxMessage:
        """A message to deliver. Its sender stores it and then calls `dispatch`."""
        return OutboxMessage(to, self._envelope(to, message), give_up_at)

    def dispatch(self, message: OutboxMessage, *, owner: object = None) -> None:
        """Send a message, and repeat it until it is acknowledged or expires, or until too many are in flight.

        `owner`, which has stored it, learns that by `take_finished`.
        """
        self._set_owner(message, owner)
        self._delivery.post(
            message.to,
            message.envelope,
            give_up_at=message.give_up_at,
            now=self._clock(),
            size=len(message.frame),
            durable=owner is not None,
        )
        self._transmit(message.to, message.envelope, message.frame)
        self._set_alarm()

    def resume(
        self, outbox: Iterable[OutboxMessage], processed: Iterable[ProcessedMessage], *, owner: object
    ) -> None:
        """Continue after a restart with what the store of `owner` holds."""
        now = self._clock()
        for known in processed:
            self._delivery.remember(known.author, known.id)
        for message in outbox:
            self._set_owner(message, owner)
            give_up_at, size = message.give_up_at, len(message.frame)
            self._delivery.resume(message.to, message.envelope, give_up_at=give_up_at, now=now, size=size)
        self._set_alarm()

    def gather(self) -> None:
        """Let direct messages wait for `release`, so that those to one peer leave together. Do not await
        anything in between: what other tasks send would wait too."""
        self._lanes.gather()

    def release(self) -> None:
        """Send what was gathered since `gather`."""
        self._lanes.release()

    def take_finished(self, owner: object) -> list[MessageID]:
        """Messages of `owner` that were acknowledged or expired since the last call."""
        for message_id in self._delivery.take_finished():
            self._finished.setdefault(self._owners.pop(message_id, 0), []).append(message_id)
        self._finished.pop(0, None)
        return self._finished.pop(id(owner), [])

    def send_once(self, to: PeerID, message: Message) -> None:
        """Send to one peer without repeats: the next such message makes up for a lost one."""
        self._transmit(to, self._envelope(to, message))

    async def send_directly(self, to: PeerID, message: Message) -> None:
        """Send to one peer, without repeats and never by broadcast. Raises PeerUnreachable."""
        self.sent[message.kind] += 1
        await self._transport.send(to, codec.encode_frame(self._envelope(to, message)))

    def broadcast(self, message: Message) -> None:
        """Send to every node, this one included, soon, together with other messages that wait."""
        envelope = Envelope(id=self._new_message_id(), message=message, sent=self._clock())
        self.sent[message.kind] += 1
        self._broadcasts[message.carrier].put(envelope)
        self.deliver_here(message)

    def deliver_here(self, message: Message) -> None:
        """Give a broadcast of this node to its own components only."""
        self._inbox.deliver(Arrival(self._transport.peer_id, message))

    def mark_processed(self, arrival: Arrival) -> None:
        """The effect of this message is durable: acknowledge it."""
        if arrival.id is None:
            return
        self._delivery.mark_processed(arrival.author, arrival.id, self._clock())
        if arrival.author == self._transport.peer_id:
            self._inbox.receive_acks(arrival.author, self._delivery.take_acks(arrival.author))
        self._set_alarm()

    def drop(self, author: PeerID, counter: str, reason: str) -> None:
        """A component has dropped a message of this peer, which is to blame."""
        self._inbox.drop(author, counter, reason)

    def note_unknown(self, arrival: Arrival) -> None:
        """A message was about a job or an execution that no component knows: its author is named if there
        are many."""
        if arrival.author != self._transport.peer_id:
            reason = f"{arrival.message.kind} about a job or an execution that is unknown here"
            self._transport.budgets.offences.note(arrival.author, "unknown", reason)

    def charge(self, arrival: Arrival, seconds: float) -> None:
        """Handling a message took a component so much processor time: its sender pays for it."""
        if arrival.author != self._transport.peer_id:
            self._transport.incoming.charge_for(arrival.author, arrival.neighbour, seconds)

    @property
    def received(self) -> Counter[str]:
        """Messages of other nodes to this one by kind, without repeats."""
        return self._inbox.received

    @property
    def in_flight(self) -> int:
        """The number of messages that are neither acknowledged nor expired."""
        return self._delivery.in_flight

    def waiting_for(self) -> set[PeerID]:
        """The peers that have messages of this node to acknowledge."""
        return self._delivery.waiting_for()

    async def wait_acknowledged(self, timeout: float) -> None:
        """Returns once every dispatched message is acknowledged, or after `timeout` seconds."""
        with trio.move_on_after(timeout):
            while self._delivery.in_flight:
                await self._inbox.acknowledged.wait()

    # --- tasks ------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Subscribe, then send and receive messages until cancelled."""
        for name in self._topics:
            await self._transport.subscribe(name)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._lanes.run)
            for queue in self._broadcasts.values():
                nursery.start_soon(queue.run)
            nursery.start_soon(self._mail.run)
            nursery.start_soon(self._repeat)
            nursery.start_soon(self._receive)
            nursery.start_soon(self._report_offences)
            task_status.started()

    async def _receive(self) -> None:
        incoming, processor = self._transport.incoming, self.processor
        async for item in incoming:
            began = processor()
            match item:
                case DirectFrame(author, payload):
                    self._inbox.receive_frame(author, payload)
                case Broadcast():
                    self._take_steps(self._inbox.receive_broadcast(item), began + LONGEST_TURN)
                case Unfinished(steps):
                    self._take_steps(steps, began + LONGEST_TURN)
                case PeerConnected(peer):
                    self._delivery.peer_reconnected(peer, self._clock())
                    self._set_alarm()
                    self._connection_changed(peer, True)
                case PeerDisconnected(peer):
                    self._connection_changed(peer, False)
            incoming.charge(processor() - began)

    def _take_steps(self, steps: Iterator[None], until: float) -> None:
        """Handle a part of a broadcast; the rest waits until others have had their turn."""
        for _ in steps:
            if self.processor() > until:
                self._transport.incoming.put_back(Unfinished(steps))
                return

    async def _report_offences(self) -> None:
        """Name in the log, at intervals, the peers of which most was dropped."""
        while True:
            await trio.sleep(LOG_INTERVAL)
            self._transport.budgets.offences.report()

    async def _repeat(self) -> None:
        """Send again what was not acknowledged, and acknowledgements that found no frame to ride on."""
        while True:
            self._set_alarm()
            await self._alarm.wait()
            now = self._clock()
            for to, envelope in self._delivery.repeats(now):
                self.counters["repeated"] += 1
                self._transmit(to, envelope)
            for peer in self._delivery.acks_due(now):
                self._lanes.put(peer, None)

    def _set_alarm(self) -> None:
        """Wake `_repeat` when the next repeat or acknowledgement is due."""
        deadline = self._delivery.next_deadline()
        if deadline is not None:
            self._alarm.no_later_than(deadline)

    def _connection_changed(self, peer: PeerID, connected: bool) -> None:
        for listener in self._connection_listeners:
            listener(peer, connected)

    # --- frames -----------------------------------------------------------------------------

    def _envelope(self, to: PeerID, message: Message) -> Envelope:
        return Envelope(id=self._new_message_id(), message=message, to=to, sent=self._clock())

    def _refuse(self, author: PeerID, message_id: MessageID, reason: str) -> None:
        self._delivery.refuse(author, message_id, reason, self._clock())
        self._set_alarm()

    def _set_owner(self, message: OutboxMessage, owner: object) -> None:
        if owner is not None:
            self._owners[message.envelope.id] = id(owner)

    def _transmit(self, to: PeerID, envelope: Envelope, frame: bytes | None = None) -> None:
        if to == self._transport.peer_id:
            self._inbox.receive_envelope(to, envelope)
        else:
            self.sent[envelope.message.kind] += 1
            self._lanes.put(to, frame or codec.encode_frame(envelope))

    def _with_acks(self, peer: PeerID, frames: Sequence[bytes]) -> list[bytes]:
        """The frames and the acknowledgements that wait for one to this peer, in as few as possible."""
        refusals, acks = self._delivery.take_refusals(peer), self._delivery.take_acks(peer)
        extra: list[bytes] = []
        if refusals:
            refused = Ack(ids=tuple(refusal.id for refusal in refusals), refused=refusals)
            extra.append(codec.encode_frame(self._envelope(peer, refused)))
        if acks and frames and len(acks) <= codec.MAX_ACKS and len(frames[0]) <= MAX_ACK_CARRIER:
            return [*extra, codec.with_acks(frames[0], acks), *frames[1:]]
        for start in range(0, len(acks), MAX_ACK_IDS):
            some = Ack(ids=acks[start : start + MAX_ACK_IDS])
            extra.append(codec.encode_frame(self._envelope(peer, some)))
        return [*extra, *frames]
