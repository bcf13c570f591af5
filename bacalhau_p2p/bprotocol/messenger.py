"""One node's voice and ear: bprotocol over a transport.

It encodes, decodes, repeats, acknowledges, recognises repeats, joins broadcasts that wait together,
and hands each message to the component that understands it. A component first makes durable what a
message changed, and then calls `settle`: only that is acknowledged to the sender. Messages of this
node to itself take no detour over the network.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio
from trio import TaskStatus

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.delivery import Delivery, OutboxMessage, ProcessedMessage, Recognition
from bacalhau_p2p.bprotocol.messages import Ack, Carrier, Message, topic
from bacalhau_p2p.errors import MessageTooLarge, PeerUnreachable, RemoteProtocolError
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.runtime.alarm import Alarm
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.transports.interface import (
    MAX_BROADCAST,
    Broadcast,
    DirectFrame,
    PeerConnected,
    PeerDisconnected,
    Transport,
)

log = get_logger(__name__)

BROADCASTS_APART = 0.01
"""Seconds between two broadcasts on a topic: what waits meanwhile travels together, and stock gossip, which
may be on the way, loses some of more than 50 to 200 a second."""
BROADCAST_BYTES = MAX_BROADCAST // 2
"""Envelopes that wait together travel together up to this size."""
MAIL_APART = 0.2
"""Seconds between two broadcasts of mail: every peer receives it, for one who may not be there."""
MAIL_FRAMES = 20
"""Frames of one broadcast of mail at most."""
LANE_IDLE = 30.0
"""Seconds after which the task that writes to a silent peer ends."""
CARRIER_BYTES = 256 * 1024
"""A frame up to this size takes acknowledgements along."""
LANE_LENGTH = 10_000
"""Frames that wait for one peer; beyond, the oldest are left to repetition."""
MESSAGES_A_SECOND = 5_000
"""Messages of one peer that are looked at, on average over four seconds."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message and its authenticated author. Give it to `settle` when its effect is durable."""

    author: PeerID
    message: Message
    id: MessageID | None = None


@dataclass(slots=True)
class _Lane:
    """Frames on their way to one peer."""

    frames: deque[bytes] = field(default_factory=deque)
    wake: trio.Event = field(default_factory=trio.Event)
    busy: bool = False
    """Whether frames are being handed to the transport, which may wait."""


@dataclass(slots=True)
class _Allowance:
    left: float
    since: UnixSeconds


Listener = Callable[[Arrival], None]
"""Takes in a message; returns at once."""

ConnectionListener = Callable[[PeerID, bool], None]
"""A peer's connection stands (True) or broke (False)."""


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
        self._transport = transport
        self._network = network
        self._clock = clock
        self._new_message_id = new_message_id
        self._delivery = Delivery(rng)
        self._listeners: dict[str, list[Listener]] = {}
        self._connection_listeners: list[ConnectionListener] = []
        self._lanes: dict[PeerID, _Lane] = {}
        self._broadcasts: dict[Carrier, deque[Envelope]] = {Carrier.JOBS: deque(), Carrier.NODES: deque()}
        self._broadcast_waits = {carrier: trio.Event() for carrier in self._broadcasts}
        self._alarm = Alarm()
        self._allowances: dict[PeerID, _Allowance] = {}
        self._mail: deque[bytes] = deque(maxlen=LANE_LENGTH)
        self._mail_waits = trio.Event()
        self._mail_topic = topic(network, Carrier.MAIL)
        self._acknowledged = trio.Event()
        self._owners: dict[MessageID, int] = {}
        self._finished: dict[int, list[MessageID]] = {}
        self._nursery: trio.Nursery | None = None
        self.counters: Counter[str] = Counter()
        """What went wrong and was survived: `malformed`, `over_rate`, `unheard`, `unreachable`."""

    # --- for components ---------------------------------------------------------------------

    def listen(self, kinds: Iterable[type[Message]], listener: Listener) -> None:
        """Hand messages of these kinds to `listener`, from now on."""
        for kind in kinds:
            self._listeners.setdefault(kind.kind, []).append(listener)

    def watch_connections(self, listener: ConnectionListener) -> None:
        self._connection_listeners.append(listener)

    def compose(self, to: PeerID, message: Message, give_up_at: UnixSeconds) -> OutboxMessage:
        """A message that will be delivered, for its sender to keep before it is dispatched."""
        return OutboxMessage(to, self._envelope(to, message), give_up_at)

    def dispatch(self, posted: OutboxMessage, *, owner: object = None) -> None:
        """Send a message, again and again until it is acknowledged or to be given up.

        `owner` learns of its end by `take_finished`.
        """
        now = self._clock()
        self._delivery.post(posted.to, posted.envelope, give_up_at=posted.give_up_at, now=now)
        self._own(posted, owner)
        self._transmit(posted.to, posted.envelope, posted.frame)
        self._look_at_clock()

    def resume(
        self, posted: Iterable[OutboxMessage], settled: Iterable[ProcessedMessage], *, owner: object
    ) -> None:
        """Go on with what an earlier life of `owner` had under way and had dealt with."""
        now = self._clock()
        for known in settled:
            self._delivery.remember(known.author, known.id, known.since)
        for message in posted:
            self._delivery.resume(message.to, message.envelope, give_up_at=message.give_up_at, now=now)
            self._own(message, owner)
        self._look_at_clock()

    def take_finished(self, owner: object) -> list[MessageID]:
        """Messages of `owner` that were acknowledged or given up since the last call."""
        for message_id in self._delivery.take_finished():
            self._finished.setdefault(self._owners.pop(message_id, 0), []).append(message_id)
        self._finished.pop(0, None)
        return self._finished.pop(id(owner), [])

    def send_once(self, to: PeerID, message: Message) -> None:
        """To one peer, without a promise: the next such message makes up for a lost one."""
        self._transmit(to, self._envelope(to, message))

    def broadcast(self, message: Message) -> None:
        """To everybody, this node included; soon, and together with others that wait."""
        envelope = Envelope(id=self._new_message_id(), message=message, sent=self._clock())
        self._broadcasts[message.carrier].append(envelope)
        self._broadcast_waits[message.carrier].set()
        self._hand_over(Arrival(self._transport.peer_id, message))

    def settle(self, arrival: Arrival) -> None:
        """What this message changed is kept."""
        if arrival.id is None:
            return
        self._delivery.settle(arrival.author, arrival.id, self._clock())
        if arrival.author == self._transport.peer_id:
            self._delivery.acknowledged(arrival.author, self._delivery.take_acks(arrival.author))
        self._look_at_clock()

    @property
    def underway(self) -> int:
        """Messages that are neither acknowledged nor given up."""
        return self._delivery.underway

    def _envelope(self, to: PeerID, message: Message) -> Envelope:
        return Envelope(id=self._new_message_id(), message=message, to=to, sent=self._clock())

    def _own(self, posted: OutboxMessage, owner: object) -> None:
        if owner is not None:
            self._owners[posted.envelope.id] = id(owner)

    def _transmit(self, to: PeerID, envelope: Envelope, frame: bytes | None = None) -> None:
        if to == self._transport.peer_id:
            self._direct_came(to, envelope)
        else:
            self._enqueue(to, frame or codec.encode_frame(envelope))

    async def quiet(self, patience: float) -> None:
        """Returns once everything that was dispatched is acknowledged, or after `patience` seconds."""
        with trio.move_on_after(patience):
            while self._delivery.underway:
                await self._acknowledged.wait()

    # --- tasks ------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Subscribe, then carry messages until cancelled."""
        for carrier in (*self._broadcasts, Carrier.MAIL):
            await self._transport.subscribe(topic(self._network, carrier))
        async with trio.open_nursery() as self._nursery:
            for carrier in self._broadcasts:
                self._nursery.start_soon(self._broadcaster, carrier)
            self._nursery.start_soon(self._mailer)
            self._nursery.start_soon(self._repeater)
            self._nursery.start_soon(self._receiver)
            task_status.started()

    async def _receiver(self) -> None:
        async for incoming in self._transport.incoming:
            match incoming:
                case DirectFrame(author, payload):
                    self._frame(author, payload)
                case Broadcast(author, name, payload):
                    self._broadcast_came(author, name, payload)
                case PeerConnected(peer):
                    self._delivery.peer_is_back(peer, self._clock())
                    self._look_at_clock()
                    self._connection(peer, True)
                case PeerDisconnected(peer):
                    self._allowances.pop(peer, None)
                    self._connection(peer, False)

    def _frame(self, author: PeerID, payload: bytes) -> None:
        now = self._clock()
        if not self._allowed(author, now):
            return
        try:
            envelope = codec.decode_frame(payload)
        except RemoteProtocolError as error:
            self._malformed(author, error)
            return
        if envelope is None or envelope.to != self._transport.peer_id:
            self.counters["unheard"] += 1
            return
        self._direct_came(author, envelope)

    def _direct_came(self, author: PeerID, envelope: Envelope) -> None:
        message = envelope.message
        if envelope.acks:
            self._acknowledge(author, envelope.acks)
        if isinstance(message, Ack):
            self._acknowledge(author, message.ids)
        elif message.carrier is Carrier.FLEETING:
            self._hand_over(Arrival(author, message))
        elif message.carrier is Carrier.DIRECT:
            match self._delivery.recognise(author, envelope.id, self._clock()):
                case Recognition.NEW:
                    self._hand_over(Arrival(author, message, envelope.id))
                case Recognition.SETTLED:
                    self.counters["repeats"] += 1
                    self.settle(Arrival(author, message, envelope.id))
                case Recognition.PENDING:
                    self.counters["repeats"] += 1
        else:
            self.counters["unheard"] += 1

    def _acknowledge(self, author: PeerID, ids: Sequence[bytes]) -> None:
        self._delivery.acknowledged(author, ids)
        self._acknowledged.set()
        self._acknowledged = trio.Event()

    def _broadcast_came(self, author: PeerID, name: str, payload: bytes) -> None:
        if not self._allowed(author, self._clock()):
            return
        try:
            envelopes = codec.decode_broadcast(payload)
        except RemoteProtocolError as error:
            self._malformed(author, error)
            return
        for envelope in envelopes:
            if name == self._mail_topic:
                if envelope.to == self._transport.peer_id:
                    self._direct_came(author, envelope)
            elif envelope.message.carrier in self._broadcasts:
                self._hand_over(Arrival(author, envelope.message))
            else:
                self.counters["unheard"] += 1

    def _hand_over(self, arrival: Arrival) -> None:
        listeners = self._listeners.get(arrival.message.kind)
        if not listeners:
            # Nobody here will ever act on it: acknowledge, or it is repeated for hours.
            self.counters["unheard"] += 1
            self.settle(arrival)
            return
        for listener in listeners:
            listener(arrival)

    def _connection(self, peer: PeerID, stands: bool) -> None:
        for listener in self._connection_listeners:
            listener(peer, stands)

    def _malformed(self, author: PeerID, error: RemoteProtocolError) -> None:
        self.counters["malformed"] += 1
        log.debug("message_dropped", author=author, reason=str(error))

    def _allowed(self, author: PeerID, now: UnixSeconds) -> bool:
        most = 4.0 * MESSAGES_A_SECOND
        allowance = self._allowances.get(author)
        if allowance is None:
            if len(self._allowances) > 10_000:
                self._allowances.clear()
            allowance = self._allowances[author] = _Allowance(most, now)
        allowance.left = min(most, allowance.left + (now - allowance.since) * MESSAGES_A_SECOND)
        allowance.since = now
        if allowance.left < 1:
            self.counters["over_rate"] += 1
            return False
        allowance.left -= 1
        return True

    async def _broadcaster(self, carrier: Carrier) -> None:
        waiting = self._broadcasts[carrier]
        name = topic(self._network, carrier)
        while True:
            await self._broadcast_waits[carrier].wait()
            self._broadcast_waits[carrier] = trio.Event()
            while waiting:
                await self._transport.broadcast(name, _joined(waiting))
                await trio.sleep(BROADCASTS_APART)

    async def _mailer(self) -> None:
        """Frames for peers who cannot be reached go to everybody; the addressee alone heeds them."""
        while True:
            await self._mail_waits.wait()
            self._mail_waits = trio.Event()
            while self._mail:
                frames = [self._mail.popleft()]
                size = len(frames[0])
                while self._mail and len(frames) < MAIL_FRAMES and size < BROADCAST_BYTES:
                    frames.append(self._mail.popleft())
                    size += len(frames[-1])
                self.counters["mailed"] += len(frames)
                with suppress(MessageTooLarge):
                    await self._transport.broadcast(self._mail_topic, codec.join_frames(frames))
                await trio.sleep(MAIL_APART)

    def _look_at_clock(self) -> None:
        """Have the repeater wake when something is due."""
        deadline = self._delivery.next_deadline()
        if deadline is not None:
            self._alarm.no_later_than(deadline - self._clock())

    async def _repeater(self) -> None:
        while True:
            self._look_at_clock()
            await self._alarm.rings()
            now = self._clock()
            for to, envelope in self._delivery.repeats(now):
                self.counters["repeated"] += 1
                self._transmit(to, envelope)
            for peer in self._delivery.acks_due(now):
                self._enqueue(peer, None)

    def _enqueue(self, to: PeerID, frame: bytes | None) -> None:
        """Put a frame (or with None just what acknowledgements wait) on the lane to this peer."""
        if self._nursery is None:
            return  # not running yet, or any more: repetition, or the next start, will see to it
        lane = self._lanes.get(to)
        if lane is None or not (lane.busy or lane.frames):
            frames = self._with_acks(to, frame)
            if not frames or self._transport.send_now(to, *frames):
                return
        else:
            frames = [] if frame is None else [frame]
        if lane is None:
            lane = self._lanes[to] = _Lane()
            self._nursery.start_soon(self._drive, to, lane)
        for waiting in frames:
            if len(lane.frames) >= LANE_LENGTH:
                lane.frames.popleft()
            lane.frames.append(waiting)
        lane.wake.set()

    def _with_acks(self, peer: PeerID, frame: bytes | None) -> list[bytes]:
        """The frame with the acknowledgements that wait for one to this peer, in as few frames as can be."""
        acks = self._delivery.take_acks(peer)
        if not acks:
            return [] if frame is None else [frame]
        if frame is not None and len(acks) <= codec.MAX_RIDING and len(frame) <= CARRIER_BYTES:
            return [codec.with_acks(frame, acks)]
        alone = codec.encode_frame(self._envelope(peer, Ack(ids=acks)))
        return [alone] if frame is None else [alone, frame]

    async def _drive(self, peer: PeerID, lane: _Lane) -> None:
        """Write what waits for one peer, so that a peer that cannot be reached delays no other."""
        while True:
            with trio.move_on_after(LANE_IDLE) as idle:
                await lane.wake.wait()
            if idle.cancelled_caught and not lane.wake.is_set():
                del self._lanes[peer]
                return
            lane.wake = trio.Event()
            lane.frames.extendleft(self._with_acks(peer, None))
            frames: list[bytes] = []
            lane.busy = True
            try:
                while lane.frames:
                    frames = list(lane.frames)
                    lane.frames.clear()
                    await self._transport.send(peer, *frames)
            except PeerUnreachable as error:
                self.counters["unreachable"] += 1
                self._mail.extend((*frames, *lane.frames))
                self._mail_waits.set()
                lane.frames.clear()
                log.debug("peer_unreachable", peer=peer, reason=str(error))
            finally:
                lane.busy = False


def _joined(waiting: deque[Envelope]) -> bytes:
    """Take as many envelopes as travel well together off the queue."""
    taken = [waiting.popleft()]
    size = len(codec.encode_frame(taken[0]))
    while waiting and len(taken) < codec.MAX_BROADCAST_ENVELOPES:
        size += len(codec.encode_frame(waiting[0]))
        if size > BROADCAST_BYTES:
            break
        taken.append(waiting.popleft())
    return codec.encode_broadcast(taken)
