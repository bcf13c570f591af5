"""Requesters that have nodes reserve room and do not use it get fewer bids: one after a while, ever longer.

Pure, as a part of the compute machine. A requester that accepts a bid, or rejects one soon, gets bids again.
Only one that accepts bids may have all of a node reserved for bids.
"""

from __future__ import annotations

from bacalhau_p2p.components.undo import UndoableDict
from bacalhau_p2p.model.base import PeerID, UnixSeconds

FIRST_PAUSE = 6.0
"""Seconds without a bid to a requester that has left one unused; doubles each time."""
LONGEST_PAUSE = 600.0
"""Seconds that such a pause lasts at most."""
MAX_REQUESTERS = 10_000
"""Requesters that are remembered, the latest ones."""


class UnusedBids:
    """Which requesters left bids unused, and until when each gets none."""

    def __init__(self) -> None:
        self._pauses: dict[PeerID, tuple[UnixSeconds, float]] = UndoableDict()
        self._accepts: dict[PeerID, None] = UndoableDict()
        """Those that have accepted a bid, and left none unused since."""

    def left_unused(self, requester: PeerID, now: UnixSeconds) -> None:
        """A bid expired, or held its room for long before it was rejected."""
        self._accepts.pop(requester, None)
        until, pause = self._pauses.pop(requester, (now, 0.0))
        if until > now and pause:  # one of several bids of the same time
            self._pauses[requester] = (until, pause)
            return
        pause = min(2 * pause or FIRST_PAUSE, LONGEST_PAUSE)
        self._pauses[requester] = (now + pause, pause)
        if len(self._pauses) > MAX_REQUESTERS:
            del self._pauses[next(iter(self._pauses))]

    def accepted(self, requester: PeerID) -> None:
        """A bid was accepted."""
        self.answered(requester)
        self._accepts.pop(requester, None)
        self._accepts[requester] = None
        if len(self._accepts) > MAX_REQUESTERS:
            del self._accepts[next(iter(self._accepts))]

    def answered(self, requester: PeerID) -> None:
        """A bid was accepted, or rejected soon."""
        self._pauses.pop(requester, None)

    def accepts(self, requester: PeerID) -> bool:
        """Whether this requester has accepted a bid, and left none unused since."""
        return requester in self._accepts

    def pauses(self, requester: PeerID, now: UnixSeconds) -> bool:
        """Whether this requester gets no bid now."""
        until, _ = self._pauses.get(requester, (now, 0.0))
        return until > now
