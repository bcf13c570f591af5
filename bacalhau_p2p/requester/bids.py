"""The bids on one job: how many it wants, which are refused, when they are enough, how long they are held.

Pure, as a part of the requester's machine.
"""

from __future__ import annotations

from collections.abc import Collection, Set

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.requester.audience import enough_bids
from bacalhau_p2p.requester.ops_nodes import is_wanted
from bacalhau_p2p.requester.pace import LONGEST_WINDOW
from bacalhau_p2p.requester.penalties import Penalties
from bacalhau_p2p.requester.ranking import RankedBid
from bacalhau_p2p.requester.record import JobEntry

HELD_SHARE = 0.5
"""The share of a bid's reservation after which its round ends, so that room is not held for nothing."""
MAX_BIDS_PER_NODE = 30
"""Bids of one node on one job that are recorded, so that no node can fill the memory; one more for each
`LONGEST_WINDOW` that the job has waited."""
HAS_A_PART = "this node already has a bid or an execution"


def bids_wanted(entry: JobEntry) -> int:
    """How many bids a round is to bring, beside those that are held."""
    return max(1, bids_to_end(entry) - len(entry.placement.bids))


def bids_to_end(entry: JobEntry) -> int:
    """How many bids end a round."""
    spec = entry.job.spec
    return enough_bids(len(entry.placement.open), spec.min_bids, inputs=bool(spec.task.input_sources))


def could_fill(entry: JobEntry) -> bool:
    """Whether the bids that are held are enough to fill every slot."""
    placement = entry.placement
    return len(placement.bids) >= max(len(placement.open), entry.job.spec.min_bids)


def are_enough(bids: list[Execution], entry: JobEntry) -> bool:
    """Whether the best of these bids may be accepted: enough nodes placed them. Once a slot was filled, any
    number is enough."""
    return entry.placement.tried > 0 or len({bid.node_id for bid in bids}) >= entry.job.spec.min_bids


def chosen_last(entry: JobEntry, nodes: Set[PeerID], penalties: Penalties, now: UnixSeconds) -> Set[PeerID]:
    """Those of these nodes that have failed this job, or are penalised. Of a job that is divided they may
    have failed another partition."""
    if not (penalties or entry.failures):
        return frozenset()
    penalised = penalties.among(nodes, now)
    return penalised if entry.divided else penalised | (nodes & entry.failures.keys())


def end_round(entry: JobEntry, penalties: Penalties, now: UnixSeconds) -> bool:
    """Whether the bids that are held end a round: those of nodes that are chosen last leave time for
    others."""
    wanted = bids_to_end(entry)
    if len(entry.placement.bids) < wanted:
        return False
    if not (penalties or entry.failures):
        return True
    received = entry.received_bids()
    last = chosen_last(entry, {bid.node_id for bid in received}, penalties, now)
    return not last or sum(bid.node_id not in last for bid in received) >= wanted


def offers(
    entry: JobEntry, received: Collection[Execution], penalties: Penalties, now: UnixSeconds
) -> list[RankedBid]:
    """What counts of these bids when the best are chosen."""
    penalised = penalties.among({bid.node_id for bid in received}, now)
    return [
        RankedBid(
            bid.id,
            bid.node_id,
            entry.bids[bid.id].load,
            bid.local_input_bytes,
            failures=_failures_that_count(entry, bid.node_id),
            penalised=bid.node_id in penalised,
        )
        for bid in received
    ]


def _failures_that_count(entry: JobEntry, node: PeerID) -> int:
    """How often a node has failed the job: what was handed back is no attempt, and one that hands everything
    back must not come before one that has failed once. Of a job that is divided, who does more fails more."""
    times = entry.times_failed.get(node, 0)
    return min(times, 1) if entry.divided else times


def refusal_of(entry: JobEntry, author: PeerID, penalties: Penalties, now: UnixSeconds) -> str | None:
    """Why a bid of this node on this job is refused, or None if it is not."""
    if _uses_up_attempts(entry, author, penalties, now):
        return "it may bid when the job is announced again"
    if entry.placement.is_busy(author):
        return "this node already has a part in all that is open" if entry.divided else HAS_A_PART
    if not (entry.is_open or entry.ops):
        return "no slot is open"
    if entry.ops and not is_wanted(entry, author, now):
        return "this node has had the job, or was not there when it was submitted"
    allowed = MAX_BIDS_PER_NODE + (now - entry.job.created) / LONGEST_WINDOW
    if entry.divided:  # executions are limited by the attempts of the slots
        allowed += say.MAX_BIDS_EACH + len(entry.slots)
    return "too many bids from this node" if entry.placement.nodes.unpaid.get(author, 0) >= allowed else None


def hold_until(entry: JobEntry, execution: Execution) -> UnixSeconds:
    """When to accept or reject a bid: its acceptance must arrive before its reservation ends."""
    reserved = entry.bids[execution.id].expires - execution.created
    return execution.created + reserved * HELD_SHARE


def _uses_up_attempts(entry: JobEntry, author: PeerID, penalties: Penalties, now: UnixSeconds) -> bool:
    """Whether the job pauses after a failure, and this node has failed what is open, or is penalised. Between
    two rounds a bid is accepted at once: one node could use up all attempts before another is asked."""
    if now >= entry.retry_at or entry.round.ends is not None:
        return False
    if penalties.until(author, now) is not None:
        return True
    if not entry.divided:
        return author in entry.failures
    placement = entry.placement
    return all((entry.slots[number].group, author) in placement.nodes.failed for number in placement.open)
