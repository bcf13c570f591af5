"""What each peer may cost this node: messages, bytes, broadcasts and processor time. docs/threats.md has why.

A peer pays for what it sends in its own name, and for what it passes on of strangers: authors that are
neither connected nor have ever answered this node. So invented identities share the budget of the neighbour
that brings them. What is over budget is dropped before it is verified or decoded; who goes on is cut off.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from bacalhau_p2p.encoding.cbor import array_length
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.runtime.logs import get_logger
from bacalhau_p2p.runtime.rate_limit import TokenBucket
from bacalhau_p2p.transports.dial_budget import DialBudget
from bacalhau_p2p.transports.offences import Offences

log = get_logger(__name__)

MESSAGES_PER_SECOND: Final = 4_000
MESSAGE_BURST: Final = 20_000
"""Messages of one peer, direct and in broadcasts, a second and at once."""
BYTES_PER_SECOND: Final = 8 * 1024 * 1024
BYTE_BURST: Final = 64 * 1024 * 1024
"""Bytes of these messages."""
NEWCOMER_MESSAGES_PER_SECOND: Final = 1_000
NEWCOMER_BURST: Final = 10_000
"""Messages in broadcasts of a peer that has not answered this node yet."""
NEWCOMER_BYTES_PER_SECOND: Final = 4 * 1024 * 1024
NEWCOMER_BYTE_BURST: Final = 16 * 1024 * 1024
"""Bytes of these messages. What is remembered to be passed on takes the same again."""
MALFORMED_PER_SECOND: Final = 10
MALFORMED_BURST: Final = 1_000
"""Messages of one peer that cannot be read. Those of kinds that a later version has added are none."""
BROADCASTS_PER_SECOND: Final = 500
BROADCAST_BURST: Final = 2_000
"""Broadcasts that one neighbour hands over, whoever wrote them."""
STREAMS_PER_SECOND: Final = 200
STREAM_BURST: Final = 4_000
"""Streams that a peer opens, a second and at once, once it has answered this node."""
STRANGER_STREAMS_PER_SECOND: Final = 50
STRANGER_STREAM_BURST: Final = 1_000
"""The same until then. A stream costs about a millisecond of processor time before it says what it is for."""
STRANGERS_PER_SECOND: Final = 200
STRANGER_BURST: Final = 2_000
"""Messages of strangers that one neighbour hands over."""
STRANGER_BYTES_PER_SECOND: Final = 2 * 1024 * 1024
STRANGER_BYTE_BURST: Final = 16 * 1024 * 1024
"""Bytes of these messages: as many of the largest node infos."""
ALL_STRANGERS_PER_SECOND: Final = 400
ALL_STRANGERS_BURST: Final = 4_000
"""Messages of strangers, whoever hands them over. So an honest neighbour passes on no more than that."""
ALL_STRANGER_BYTES_PER_SECOND: Final = 4 * 1024 * 1024
ALL_STRANGER_BYTE_BURST: Final = 32 * 1024 * 1024
"""Bytes of these messages."""
PROCESSOR_SHARE: Final = 0.8
"""Seconds of processor time a second for the messages of a peer that has answered this node."""
STRANGER_PROCESSOR_SHARE: Final = 0.2
"""The same for any other peer, and for the strangers that one neighbour hands over."""
PROCESSOR_BURST: Final = 2.0
STRANGER_PROCESSOR_BURST: Final = 0.5
"""Seconds of processor time at once, likewise."""
MOST_COUNTED: Final = 1_000
"""Messages that a broadcast counts for at most; what claims to have more is refused when it is decoded."""
RESTS_PER_SECOND: Final = 20
REST_BURST: Final = 1_000
"""Times that a peer that has not answered yet is made to rest for taking more processor time than it may."""
TOLERATED: Final = 0.25
TOLERATED_RATE: Final = 0.5
"""What is dropped before a peer is cut off, as shares of the burst and of the rate of its budget."""
CUT_OFF: Final = 60.0
LONGEST_CUT_OFF: Final = 3600.0
"""Seconds for which a peer is cut off the first time and at most; each time twice as long as the last."""
FORGIVEN_AFTER: Final = 2 * LONGEST_CUT_OFF
"""Seconds after which it is the first time again."""
MAX_ACCOUNTS: Final = 4_096
"""Peers whose budgets are kept; those that were used longest ago are forgotten first."""
MAX_ANSWERED: Final = 4_096
"""Peers that are remembered because they answered this node."""
MAX_CUT_OFF: Final = 4_096
"""Peers that are remembered because they were cut off."""


class Source(NamedTuple):
    """Who pays for a message: its author, or the neighbour that handed over the message of a stranger."""

    peer: PeerID
    strangers: bool = False


class _Budget:
    """A budget, and what is dropped beyond it before its owner is cut off."""

    def __init__(self, rate: float, burst: float) -> None:
        self._within = TokenBucket(rate, burst)
        self._beyond = TokenBucket(rate * TOLERATED_RATE, burst * TOLERATED)
        self.exhausted = False
        """Whether more was dropped than is tolerated."""

    def take(self, now: float, amount: float) -> bool:
        if self._within.take(now, amount):
            return True
        self.exhausted = not self._beyond.take(now, amount)
        return False


class _Account:
    """The budgets of one source."""

    def __init__(self, *, answered: bool) -> None:
        self.newcomer = _Budget(NEWCOMER_MESSAGES_PER_SECOND, NEWCOMER_BURST)
        self.newcomer_bytes = _Budget(NEWCOMER_BYTES_PER_SECOND, NEWCOMER_BYTE_BURST)
        self.rests = _Budget(RESTS_PER_SECOND, REST_BURST)
        self.malformed = _Budget(MALFORMED_PER_SECOND, MALFORMED_BURST)
        self.messages = _Budget(MESSAGES_PER_SECOND, MESSAGE_BURST)
        self.bytes = _Budget(BYTES_PER_SECOND, BYTE_BURST)
        self.broadcasts = _Budget(BROADCASTS_PER_SECOND, BROADCAST_BURST)
        self.strangers = TokenBucket(STRANGERS_PER_SECOND, STRANGER_BURST)
        self.stranger_bytes = TokenBucket(STRANGER_BYTES_PER_SECOND, STRANGER_BYTE_BURST)
        if answered:
            self.processor = TokenBucket(PROCESSOR_SHARE, PROCESSOR_BURST)
            self.streams = _Budget(STREAMS_PER_SECOND, STREAM_BURST)
        else:
            self.processor = TokenBucket(STRANGER_PROCESSOR_SHARE, STRANGER_PROCESSOR_BURST)
            self.streams = _Budget(STRANGER_STREAMS_PER_SECOND, STRANGER_STREAM_BURST)


_REASONS = {"malformed": "too many malformed messages", "rests": "too much processor time"}


@dataclass(slots=True)
class _Sentence:
    """How long a peer is cut off."""

    until: float
    duration: float


class Budgets:
    """The budgets of all peers of one node.

    `clock` gives seconds that never go back, `processor` the processor time of this thread. `is_connected`
    says whether a peer is connected. `cut_off` is called with a peer and for how many seconds it is to be
    disconnected and refused.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        is_connected: Callable[[PeerID], bool],
        cut_off: Callable[[PeerID, float], None],
        processor: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock = clock
        self._is_connected = is_connected
        self._cut_off = cut_off
        self.processor = processor
        self.offences = Offences()
        self.dials = DialBudget(clock, self.offences)
        self._accounts: OrderedDict[Source, _Account] = OrderedDict()
        self._answered: OrderedDict[PeerID, float] = OrderedDict()
        self._sentences: OrderedDict[PeerID, _Sentence] = OrderedDict()
        self._all_strangers = TokenBucket(ALL_STRANGERS_PER_SECOND, ALL_STRANGERS_BURST)
        self._all_stranger_bytes = TokenBucket(ALL_STRANGER_BYTES_PER_SECOND, ALL_STRANGER_BYTE_BURST)
        self._cut_off_watchers: list[Callable[[PeerID], None]] = []

    # --- who pays -----------------------------------------------------------------------------

    def answered(self, peer: PeerID) -> None:
        """This peer has acknowledged a message of this node: it is no stranger."""
        known = peer in self._answered
        self._answered[peer] = self._clock()
        self._answered.move_to_end(peer)
        if known:
            return
        self.dials.met(peer)
        self._accounts.pop(Source(peer), None)
        if len(self._answered) > MAX_ANSWERED:
            self._answered.popitem(last=False)

    def has_answered(self, peer: PeerID) -> bool:
        """Whether this peer ever answered this node."""
        return peer in self._answered

    def silent_for(self, peer: PeerID) -> float:
        """Seconds since this peer last answered this node; infinite if it never did."""
        return self._clock() - self._answered.get(peer, -inf)

    def source(self, author: PeerID, neighbour: PeerID | None) -> Source:
        """Who pays for a message of `author` that `neighbour` handed over; None: the author itself."""
        if neighbour is None or neighbour == author or self._is_known(author):
            return Source(author)
        return Source(neighbour, strangers=True)

    # --- broadcasts and frames ----------------------------------------------------------------

    def admits(self, author: PeerID, neighbour: PeerID) -> bool:
        """Whether a broadcast is worth verifying: neither peer is cut off, and the neighbour is within its
        budget of broadcasts. Cheap; the author is not proven yet and pays nothing."""
        if self.is_cut_off(neighbour) or self.is_cut_off(author):
            return False
        return self._within(neighbour, self._account(Source(neighbour)).broadcasts, 1, "broadcasts")

    def takes_broadcast(self, author: PeerID, neighbour: PeerID, payload: bytes) -> bool:
        """Whether a verified broadcast is within the budgets that pay for it. If not, it is neither
        delivered nor passed on."""
        messages = min(array_length(payload) or 1, MOST_COUNTED)
        source = self.source(author, neighbour)
        if not self.takes(source.peer, len(payload), messages):
            return False
        if not source.strangers:
            return source.peer in self._answered or self._takes_newcomer(source.peer, len(payload), messages)
        if self._takes_stranger(neighbour, len(payload), messages):
            self.dials.brought(author, neighbour)
            return True
        self.offences.note(neighbour, "strangers", "too many messages of strangers", messages)
        return False

    def _takes_newcomer(self, peer: PeerID, size: int, messages: int) -> bool:
        account = self._account(Source(peer))
        if not account.newcomer.take(self._clock(), messages):
            return self._exceeded(peer, account.newcomer, "messages", messages)
        if not account.newcomer_bytes.take(self._clock(), size):
            return self._exceeded(peer, account.newcomer_bytes, "bytes", messages)
        return True

    def _takes_stranger(self, neighbour: PeerID, size: int, messages: int) -> bool:
        account, now = self._account(Source(neighbour)), self._clock()
        return (
            account.strangers.take(now, messages)
            and account.stranger_bytes.take(now, size)
            and self._all_strangers.take(now, messages)
            and self._all_stranger_bytes.take(now, size)
        )

    def takes(self, peer: PeerID, size: int, messages: int = 1) -> bool:
        """Whether so many messages of so many bytes in all are within the budgets of a peer."""
        account, now = self._account(Source(peer)), self._clock()
        if not account.messages.take(now, messages):
            return self._exceeded(peer, account.messages, "messages", messages)
        if not account.bytes.take(now, size):
            return self._exceeded(peer, account.bytes, "bytes", messages)
        return True

    def malformed(self, peer: PeerID, reason: str) -> None:
        """A message of this peer could not be read."""
        self.offences.note(peer, "malformed", reason)
        self._within(peer, self._account(Source(peer)).malformed, 1, "malformed")

    def takes_stream(self, peer: PeerID) -> bool:
        """Whether another stream that this peer opens is within its budget."""
        return self._within(peer, self._account(Source(peer)).streams, 1, "streams")

    # --- processor time -----------------------------------------------------------------------

    def spend(self, source: Source, seconds: float) -> None:
        """The messages of this source took so much processor time."""
        self._account(source).processor.spend(self._clock(), seconds)

    def rests_for(self, source: Source) -> float:
        """Seconds for which nothing of this source is handled, since it took more than its share."""
        account = self._accounts.get(source)
        if account is None or not account.processor.in_debt:
            return 0.0
        return account.processor.debt_lasts(self._clock())

    def rested(self, source: Source) -> None:
        """This source is made to rest. A newcomer that goes on is cut off; of strangers none is to blame."""
        self.offences.note(source.peer, "rests", "its messages take too much processor time")
        if not source.strangers and source.peer not in self._answered:
            self._within(source.peer, self._account(source).rests, 1, "rests")

    # --- cutting off --------------------------------------------------------------------------

    def watch_cut_offs(self, watcher: Callable[[PeerID], None]) -> None:
        """Call `watcher` for every peer that is cut off, from now on."""
        self._cut_off_watchers.append(watcher)

    def is_cut_off(self, peer: PeerID) -> bool:
        """Whether nothing of this peer is taken now."""
        sentence = self._sentences.get(peer)
        return sentence is not None and self._clock() < sentence.until

    def cut_off_for(self) -> dict[PeerID, float]:
        """The peers that are cut off now, and for how many more seconds."""
        now = self._clock()
        return {
            peer: sentence.until - now for peer, sentence in self._sentences.items() if sentence.until > now
        }

    def cut_off(self, peer: PeerID, reason: str) -> None:
        """Disconnect a peer and take nothing of it for a while, longer each time."""
        now = self._clock()
        last = self._sentences.pop(peer, None)
        duration = CUT_OFF
        if last is not None and now < last.until + FORGIVEN_AFTER:
            duration = min(2 * last.duration, LONGEST_CUT_OFF)
        self._sentences[peer] = _Sentence(now + duration, duration)
        if len(self._sentences) > MAX_CUT_OFF:
            self._sentences.popitem(last=False)
        self._accounts.pop(Source(peer), None)
        log.warning(
            "peer_cut_off", peer=peer, seconds=duration, reason=reason, **dict(self.offences.of(peer))
        )
        self._cut_off(peer, duration)
        for watcher in self._cut_off_watchers:
            watcher(peer)

    def _within(self, peer: PeerID, budget: _Budget, messages: int, what: str) -> bool:
        return budget.take(self._clock(), messages) or self._exceeded(peer, budget, what, messages)

    def _exceeded(self, peer: PeerID, budget: _Budget, what: str, messages: int) -> bool:
        """Note that so many messages were dropped, and cut off a peer that goes on. Always False."""
        reason = _REASONS.get(what, f"too many {what}")
        self.offences.note(peer, f"over_budget_{what}", reason, messages)
        if budget.exhausted and not self.is_cut_off(peer):
            self.cut_off(peer, reason)
        return False

    def _is_known(self, peer: PeerID) -> bool:
        return peer in self._answered or self._is_connected(peer)

    def _account(self, source: Source) -> _Account:
        account = self._accounts.get(source)
        if account is None:
            account = _Account(answered=not source.strangers and source.peer in self._answered)
            self._accounts[source] = account
            if len(self._accounts) > MAX_ACCOUNTS:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(source)
        return account
