"""How much of a node one requester may hold, so that none can keep the others out.

Pure, as a part of the compute machine. A requester may use a whole node while nobody else wants any of it. As
soon as the node turns others away for want of room, a requester that holds its share gets no more. Until it
has accepted a bid, its share is all that a requester gets, even if nobody else asks: it may never accept one.
"""

from __future__ import annotations

from dataclasses import dataclass

from bacalhau_p2p.components.undo import UndoableDict
from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.compute.unused_bids import UnusedBids
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.resources import Resources

DEFAULT_SHARE = 0.5
"""The share of a node that one requester may hold while others want some of it."""
ASKED_LATELY = 45.0
"""Seconds for which a requester that was turned away counts as wanting room. It announces its job again
within `requester.pace.LONGEST_WINDOW`, and a quarter more."""
MAX_ASKING = 1000
"""Requesters that are remembered because they were turned away, the latest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRules:
    """What the operator of a node grants each requester."""

    share: float = DEFAULT_SHARE
    """The part of the node that it may hold at most while others ask, above 0 and up to 1."""
    jobs: int = 0
    """The most executions that it may have prepared or running, bids included. 0: any number."""


DEFAULT_RULES = ShareRules()


class Shares:
    """Who holds how much of the capacity, and who was turned away lately."""

    def __init__(self, capacity: Capacity, rules: ShareRules, bids: UnusedBids) -> None:
        """`bids`: which requesters use the room that is reserved for them."""
        self._capacity = capacity
        self._rules = rules
        self._bids = bids
        self._turned_away: dict[PeerID, UnixSeconds] = UndoableDict()
        """Until when each counts as wanting room."""

    def refusal(self, requester: PeerID, wanted: Resources, now: UnixSeconds) -> str | None:
        """Why this requester may not hold so much more now, even if there is room. What it gets otherwise may
        exceed its share if it holds nothing yet: jobs are not divided. Others count as asking until it has
        accepted a bid."""
        asking = self._others_asking(requester, now)
        if not self._bids.accepts(requester):
            asking = max(asking, 1)
        if not (asking or self._rules.jobs):
            return None
        count, held = self._capacity.held_by(requester)
        if self._rules.jobs and count >= self._rules.jobs:
            return f"runs at most {self._rules.jobs} jobs at a time for one requester"
        if not (asking and count) or (held + wanted).fits_in(self._share(asking)):
            return None
        return "leaves room for other requesters"

    def turned_away(self, requester: PeerID, now: UnixSeconds) -> None:
        """A job of this requester found no room that the node has when it is idle."""
        self._turned_away.pop(requester, None)
        self._turned_away[requester] = now + ASKED_LATELY
        if len(self._turned_away) > MAX_ASKING:
            del self._turned_away[next(iter(self._turned_away))]

    def _others_asking(self, requester: PeerID, now: UnixSeconds) -> int:
        return sum(until > now for peer, until in self._turned_away.items() if peer != requester)

    def _share(self, asking: int) -> Resources:
        """The most that one requester may hold while so many others ask: less if these are several, for two
        that hold a half each leave nothing to a third. Never below half of its share: names cost nothing."""
        limit, share = self._capacity.limit, self._rules.share * max(0.5, 2 / (asking + 1))
        return Resources(
            cpu=limit.cpu * share,
            memory=int(limit.memory * share),
            disk=int(limit.disk * share),
            gpu=int(limit.gpu * share),
        )
