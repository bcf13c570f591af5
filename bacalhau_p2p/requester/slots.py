"""The slots of a job, and which bid fills which of them.

Pure, as a part of the requester's machine.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.requester.groups import Slot
from bacalhau_p2p.requester.ranking import RankedBid
from bacalhau_p2p.requester.record import JobEntry


def slots_of(job: Job) -> list[Slot]:
    """One slot for each node of an ops job, or one for any node as long as none is known that matches;
    otherwise one for each execution that is wanted."""
    spec = job.spec
    if spec.is_ops and not job.nodes:
        return [Slot(0)]
    if spec.is_ops:
        return [Slot(number, group=number, node=node) for number, node in enumerate(job.nodes)]
    return [Slot(number, group=number // spec.group_size) for number in range(spec.slots)]


def assign(entry: JobEntry, ranked: Sequence[RankedBid]) -> list[tuple[Slot, RankedBid]]:
    """Which of these bids, the best first, fills which open slot.

    Of a job that is divided each node gets one partition before any gets a second one. None gets the same one
    twice, and one on which it failed gets it again only if nobody else takes it.
    """
    if not entry.divided:
        return list(zip(entry.open_slots, ranked, strict=False))
    placement, slots = entry.placement, entry.slots
    chosen, placed = list[tuple[Slot, RankedBid]](), set[tuple[int, PeerID]]()
    waiting = placement.open.copy()

    def place(bid: RankedBid, unwanted: Container[tuple[int, PeerID]]) -> bool:
        for place, number in enumerate(waiting):
            part = (slots[number].group, bid.node)
            if part not in placement.nodes.working and part not in placed and part not in unwanted:
                placed.add(part)
                del waiting[place]
                chosen.append((slots[number], bid))
                return True
        return False

    left = [bid for bid in _in_turns(entry, ranked) if not place(bid, placement.nodes.failed)]
    for bid in left:
        place(bid, ())
    return chosen


def _in_turns(entry: JobEntry, ranked: Iterable[RankedBid]) -> list[RankedBid]:
    """The same bids, those of nodes with fewer executions of the job first, and of penalised nodes last."""
    turns = dict[PeerID, int]()
    found: list[tuple[bool, int, RankedBid]] = []
    for bid in ranked:
        turn = turns.get(bid.node)
        if turn is None:
            turn = len(entry.placement.nodes.active.get(bid.node, ()))
        found.append((bid.penalised, turn, bid))
        turns[bid.node] = turn + 1
    return [bid for *_, bid in sorted(found, key=lambda each: each[:2])]
