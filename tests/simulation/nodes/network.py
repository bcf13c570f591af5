"""The network between simulated nodes: what is lost, late, repeated or cut off, by dice for each message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from zlib import crc32

from bacalhau_p2p.bprotocol import codec
from bacalhau_p2p.bprotocol.codec import Envelope
from bacalhau_p2p.model.base import PeerID
from tests.simulation.plans.plan import Delay, Loss, Partition, Plan, Reordering, Repetition

GRAIN = 0.005
"""Seconds: arrivals happen at multiples of it, so that some happen together."""
QUICKEST, SLOWEST = 0.001, 0.02
"""Seconds that a message takes where nothing is wrong."""


def grained(when: float) -> float:
    """The next moment at which things happen."""
    return -(-when // GRAIN) * GRAIN


class Wires:
    """Decides when and how often a message arrives. Dice depend on the message and not on what went before,
    so that a plan with one fault less remains the same world otherwise."""

    def __init__(self, plan: Plan, start: float) -> None:
        self._seed = plan.seed
        self._start = start
        self._encoded = plan.encoded
        self._losses = [fault for fault in plan.faults if isinstance(fault, Loss)]
        self._delays = [fault for fault in plan.faults if isinstance(fault, Delay)]
        self._repetitions = [fault for fault in plan.faults if isinstance(fault, Repetition)]
        self._reorderings = [fault for fault in plan.faults if isinstance(fault, Reordering)]
        self._partitions = [fault for fault in plan.faults if isinstance(fault, Partition)]
        self._last: dict[tuple[PeerID, PeerID], float] = {}
        self._times_sent: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        """How often each kind of fault really struck a message."""

    def cut(self, sender: PeerID, receiver: PeerID, now: float) -> bool:
        """Whether nothing gets from one to the other."""
        since = now - self._start
        for partition in self._partitions:
            if partition.start <= since < partition.end:
                inside = sender in partition.group
                if inside != (receiver in partition.group) and (inside or not partition.one_way):
                    return True
        return False

    def arrivals(
        self, sender: PeerID, receiver: PeerID, envelope: Envelope, now: float
    ) -> list[tuple[float, Envelope]]:
        """When this message arrives: never, once or twice."""
        if self.cut(sender, receiver, now):
            self.struck["partition"] += 1
            return []
        rng = self._dice_for(sender, receiver, envelope)
        since = now - self._start
        for loss in self._losses:
            if loss.start <= since < loss.end and rng() < loss.rate:
                self.struck["loss"] += 1
                return []
        if self._encoded:
            envelope = _through_bytes(envelope)
        times = [self._arrival(sender, receiver, rng, now)]
        for repetition in self._repetitions:
            if repetition.start <= since < repetition.end and rng() < repetition.rate:
                self.struck["repetition"] += 1
                times.append(self._arrival(sender, receiver, rng, now + 3 * rng()))
        return [(time, envelope) for time in times]

    def _arrival(self, sender: PeerID, receiver: PeerID, rng: Callable[[], float], now: float) -> float:
        since = now - self._start
        takes = QUICKEST + (SLOWEST - QUICKEST) * rng()
        for delay in self._delays:
            if delay.start <= since < delay.end:
                self.struck["delay"] += 1
                takes += delay.most * rng() ** 2
        when = grained(now + takes)
        if any(each.start <= since < each.end for each in self._reorderings):
            self.struck["reordering"] += 1
            return grained(when + 0.5 * rng())
        when = max(when, self._last.get((sender, receiver), 0.0))
        self._last[sender, receiver] = when
        return when

    def _dice_for(self, sender: PeerID, receiver: PeerID, envelope: Envelope) -> Callable[[], float]:
        message = envelope.message
        about = getattr(message, "execution_id", None) or getattr(message, "job_id", "")
        name = f"{sender}>{receiver}:{message.kind}:{about}"
        self._times_sent[name] += 1
        state = crc32(f"{self._seed}:{name}:{self._times_sent[name]}".encode())

        def rng() -> float:
            nonlocal state
            state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
            return ((state >> 33) & 0x7FFFFFFF) / 0x80000000

        return rng


def _through_bytes(envelope: Envelope) -> Envelope:
    if envelope.to is None:
        (decoded,) = codec.decode_broadcast(codec.encode_broadcast([envelope]))
        return decoded
    frame = codec.decode_frame(codec.encode_frame(envelope))
    assert frame is not None
    return frame
