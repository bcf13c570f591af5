"""The network between simulated nodes: which messages are lost, late, repeated or cut off.

Chances are drawn for each message alone, so that a plan with one fault less stays the same world otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from zlib import crc32

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.codec import Envelope
from bacalhau_p2p.bprotocol.messages import Message
from bacalhau_p2p.model.base import PeerID
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import Delay, Loss, Partition, Plan, Reordering, Repetition

TIME_STEP = 0.005
"""Seconds: arrivals happen at multiples of it, so that some happen together."""
MIN_LATENCY, MAX_LATENCY = 0.001, 0.02
"""Seconds that a message takes where nothing is wrong."""


def next_step(when: float) -> float:
    """The next moment at which things happen."""
    return -(-when // TIME_STEP) * TIME_STEP


@dataclass(frozen=True, slots=True)
class _Receiver:
    receive: Callable[[PeerID, Envelope], None]
    listens_to: Callable[[Message], bool]


class Network:
    """Carries messages between the peers that are attached."""

    def __init__(self, plan: Plan, timeline: Timeline) -> None:
        self._timeline = timeline
        self._seed = plan.seed
        self._encoded = plan.encoded
        self._losses = [fault for fault in plan.faults if isinstance(fault, Loss)]
        self._delays = [fault for fault in plan.faults if isinstance(fault, Delay)]
        self._repetitions = [fault for fault in plan.faults if isinstance(fault, Repetition)]
        self._reorderings = [fault for fault in plan.faults if isinstance(fault, Reordering)]
        self._partitions = [fault for fault in plan.faults if isinstance(fault, Partition)]
        self._receivers: dict[PeerID, _Receiver] = {}
        self._last_arrival: dict[tuple[PeerID, PeerID], float] = {}
        self._times_sent: Counter[str] = Counter()

    def attach(
        self,
        peer: PeerID,
        receive: Callable[[PeerID, Envelope], None],
        listens_to: Callable[[Message], bool],
    ) -> None:
        """Deliver to this peer what is sent to it, and the broadcasts that it listens to."""
        self._receivers[peer] = _Receiver(receive, listens_to)

    def send(self, sender: PeerID, to: PeerID, envelope: Envelope) -> None:
        """A message to one peer. Nobody receives it if the peer is not attached."""
        if to in self._receivers:
            self._send(sender, to, envelope)

    def broadcast(self, sender: PeerID, envelope: Envelope) -> None:
        """A message to everybody else who listens to it."""
        for peer, receiver in self._receivers.items():
            if peer != sender and receiver.listens_to(envelope.message):
                self._send(sender, peer, envelope)

    def are_separated(self, one: PeerID, other: PeerID) -> bool:
        """Whether nothing gets through in one of the two directions."""
        return self._is_cut(one, other) or self._is_cut(other, one)

    def _send(self, sender: PeerID, to: PeerID, envelope: Envelope) -> None:
        receive = self._receivers[to].receive
        for when, carried in self._arrivals(sender, to, envelope):
            self._timeline.at(when, partial(receive, sender, carried))

    def _is_cut(self, sender: PeerID, receiver: PeerID) -> bool:
        since = self._timeline.since_start
        for partition in self._partitions:
            if partition.start <= since < partition.end:
                inside = sender in partition.group
                if inside != (receiver in partition.group) and (inside or not partition.one_way):
                    return True
        return False

    def _arrivals(self, sender: PeerID, receiver: PeerID, envelope: Envelope) -> list[tuple[float, Envelope]]:
        """When this message arrives: never, once or twice."""
        faults = self._timeline.faults
        if self._is_cut(sender, receiver):
            faults["partition"] += 1
            return []
        draw = self._chances(sender, receiver, envelope)
        now, since = self._timeline.now, self._timeline.since_start
        for loss in self._losses:
            if loss.start <= since < loss.end and draw() < loss.rate:
                faults["loss"] += 1
                return []
        if self._encoded:
            envelope = _through_bytes(envelope)
        times = [self._arrival(sender, receiver, draw, now)]
        for repetition in self._repetitions:
            if repetition.start <= since < repetition.end and draw() < repetition.rate:
                faults["repetition"] += 1
                times.append(self._arrival(sender, receiver, draw, now + 3 * draw()))
        return [(time, envelope) for time in times]

    def _arrival(self, sender: PeerID, receiver: PeerID, draw: Callable[[], float], sent: float) -> float:
        faults, since = self._timeline.faults, sent - self._timeline.start
        takes = MIN_LATENCY + (MAX_LATENCY - MIN_LATENCY) * draw()
        for delay in self._delays:
            if delay.start <= since < delay.end:
                faults["delay"] += 1
                takes += delay.most * draw() ** 2
        when = next_step(sent + takes)
        if any(each.start <= since < each.end for each in self._reorderings):
            faults["reordering"] += 1
            return next_step(when + 0.5 * draw())
        when = max(when, self._last_arrival.get((sender, receiver), 0.0))
        self._last_arrival[sender, receiver] = when
        return when

    def _chances(self, sender: PeerID, receiver: PeerID, envelope: Envelope) -> Callable[[], float]:
        """Random numbers from [0, 1) for this message."""
        message = envelope.message
        about = getattr(message, "execution_id", None) or getattr(message, "job_id", "")
        name = f"{sender}>{receiver}:{message.kind}:{about}"
        self._times_sent[name] += 1
        state = crc32(f"{self._seed}:{name}:{self._times_sent[name]}".encode())

        def draw() -> float:
            nonlocal state
            state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
            return ((state >> 33) & 0x7FFFFFFF) / 0x80000000

        return draw


def _through_bytes(envelope: Envelope) -> Envelope:
    if envelope.to is None:
        (decoded,) = codec.decode_broadcast(codec.encode_broadcast([envelope]))
        assert isinstance(decoded, Envelope), decoded
        return decoded
    return codec.decode_frame(codec.encode_frame(envelope))
