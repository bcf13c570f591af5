"""The slots of a job, and which bid fills which of them.

Pure, as a part of the requester's machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.requester.ranking import RankedBid
from bacalhau_p2p.requester.record import ACTIVE, GONE, JobEntry, Slot


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
    working, failed = entry.nodes_by_group(), _failed_by_group(entry)
    chosen, waiting = list[tuple[Slot, RankedBid]](), entry.open_slots

    def place(bid: RankedBid, unwanted: dict[int, set[PeerID]]) -> bool:
        for slot in waiting:
            if bid.node not in working.get(slot.group, ()) and bid.node not in unwanted.get(slot.group, ()):
                working.setdefault(slot.group, set()).add(bid.node)
                waiting.remove(slot)
                chosen.append((slot, bid))
                return True
        return False

    left = [bid for bid in _in_turns(entry, ranked) if not place(bid, failed)]
    for bid in left:
        place(bid, {})
    return chosen


def _in_turns(entry: JobEntry, ranked: Iterable[RankedBid]) -> list[RankedBid]:
    """The same bids, those of nodes with fewer executions of the job first."""
    turns = Counter(each.node_id for each in entry.executions.values() if each.state in ACTIVE)
    found: list[tuple[int, RankedBid]] = []
    for bid in ranked:
        found.append((turns[bid.node], bid))
        turns[bid.node] += 1
    return [bid for _, bid in sorted(found, key=lambda each: each[0])]


def _failed_by_group(entry: JobEntry) -> dict[int, set[PeerID]]:
    """The nodes on which an execution of each group failed or was lost."""
    found: dict[int, set[PeerID]] = {}
    for execution in entry.executions.values():
        if execution.slot is not None and execution.state in GONE:
            found.setdefault(entry.slots[execution.slot].group, set()).add(execution.node_id)
    return found
