"""How many nodes are asked for bids, and which: enough to choose from, however many there are.

Pure, as a part of the requester's machine. `bprotocol/draw.py` has the draw.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, replace
from heapq import nsmallest
from math import nextafter, sqrt

from bacalhau_p2p.bprotocol.draw import lot
from bacalhau_p2p.components.undo import Undoable
from bacalhau_p2p.model.base import JobID, PeerID

WIDENING = 12
"""How many times as many nodes are asked in the next round, when one brought too few bids: enough if the
requester knows ten times as many nodes as there are."""
MOST_UNKNOWN = 16
"""Nodes for each one that the requester knows, at most, as far as it believes that there are others: what
strangers answer must not keep the nodes that it knows from being asked."""
MOST_ASKED_DIRECTLY = 64
"""Nodes that are asked directly at most, where these are all that could run the job."""
ANSWERS_AVERAGED = 32
"""Answers over which the share of nodes is averaged that the requester did not know."""


def enough_bids(open_slots: int, min_bids: int, *, inputs: bool) -> int:
    """Bids to choose from for so many open slots, of a job that needs `min_bids`. A round ends with them.

    The better of two bids is nearly as good as the best of many, unless nodes differ in what they have of the
    job's inputs.
    """
    return max(open_slots + (2 if inputs else 1) + open_slots // 4, min_bids)


def nodes_asked(bids: int, widened: int) -> int:
    """How many nodes to ask for so many bids, after so many rounds that brought too few: some do not answer,
    have no room, or decline."""
    return round(bids + 3 * sqrt(bids)) * int(WIDENING ** min(widened, 10))


def nodes_asked_directly(bids: int) -> int:
    """The same where the requester is connected to each of them, and knows that it could run the job."""
    return bids + 1 + bids // 4


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked in a round."""

    chance: float
    """The lot below which nodes may bid; 1.0: each that hears of the job."""
    nodes: Set[PeerID]
    """The nodes among them that the requester knows, and that could run the job."""
    others: float
    """Roughly how many others are among them."""
    eligible: int
    """Roughly how many nodes could run the job, asked or not."""
    directly: bool = False
    """Whether these nodes alone hear of the job."""

    @property
    def everybody(self) -> bool:
        """Whether each node of the network may bid."""
        return self.chance >= 1.0 and not self.directly

    @property
    def is_for_strangers(self) -> bool:
        """Whether the requester knows of no node that could run the job, and asks whoever hears of it."""
        return self.everybody and not self.nodes

    def may_bid(self, job_id: JobID, node: PeerID) -> bool:
        """Whether this node is asked, known or not."""
        return node in self.nodes if self.directly else self.chance >= 1.0 or lot(job_id, node) < self.chance


NOBODY = Asked(1.0, frozenset(), 0.0, 0)


class Audience(Undoable):
    """Chooses who is asked, and learns from the answers how many nodes there are that the requester does not
    know."""

    def __init__(self) -> None:
        self._unknown_share = 0.0

    def answered(self, *, known: bool) -> None:
        """A node has bid or declined. `known`: it was known when it was asked."""
        self._unknown_share += ((not known) - self._unknown_share) / ANSWERS_AVERAGED

    def ask(self, job_id: JobID, able: Set[PeerID], number: int, *, tried: Collection[PeerID] = ()) -> Asked:
        """Ask about `number` nodes, `able` being those that are known and could run the job. `tried` may be
        asked too, and do not count."""
        fresh = able - set(tried)
        others = len(able) * self._others_for_each()
        eligible = round(len(able) + others)
        if number >= len(fresh) + others:
            return Asked(1.0, able, others, eligible)
        chance = _chance([lot(job_id, node) for node in fresh], others, number)
        asked = {node for node in able if lot(job_id, node) < chance}
        return Asked(chance, asked, others * chance, eligible)

    def ask_directly(
        self, job_id: JobID, asked: Asked, near: Set[PeerID], bids: int, *, preferred: Sequence[PeerID] = ()
    ) -> Asked:
        """Instead of a draw among many, ask some of those that are `near`: connected, able to run the job,
        and not tried. About half of them are `preferred`, in this order; the others have the lowest lots. If
        there are not enough for so many bids, or all are asked, who was to be asked is: directly if all of
        these are near."""
        number = nodes_asked_directly(bids)
        if asked.everybody and not asked.is_for_strangers and asked.others < 1 and asked.nodes <= near:
            return replace(asked, directly=len(asked.nodes) <= MOST_ASKED_DIRECTLY)
        if asked.everybody or number > len(near):
            return asked
        first = [node for node in preferred if node in near][: number // 2 + 1]
        rest = nsmallest(number - len(first), near - set(first), key=lambda node: lot(job_id, node))
        return Asked(1.0, frozenset([*first, *rest]), 0.0, asked.eligible, directly=True)

    def _others_for_each(self) -> float:
        """Nodes that the requester does not know for each one that it knows."""
        return min(1 / max(1 - self._unknown_share, 1e-9), MOST_UNKNOWN) - 1


def _chance(lots: list[float], others: float, number: int) -> float:
    """The lot below which there are `number` nodes: those of `lots`, and of others as many as to expect."""
    for below, mine in enumerate(nsmallest(number, lots)):
        if below + others * mine >= number:
            return (number - below) / others
        if below + 1 + others * mine >= number:
            return nextafter(mine, 1.0)
    return min(1.0, (number - len(lots)) / others) if others else 1.0
