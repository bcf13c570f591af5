"""The nodes of an ops job: those that match when it is submitted. Each runs it once, and none is replaced.

Pure, as a part of the requester's machine.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from bacalhau_p2p.bprotocol.draw import spread
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester import execution_transitions as executions
from bacalhau_p2p.requester import job_transitions as jobs
from bacalhau_p2p.requester.audience import Asked
from bacalhau_p2p.requester.groups import Slot
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.liveness import LOST_AFTER_SILENCE, LOST_WITHOUT_REPLACEMENT, Liveness
from bacalhau_p2p.requester.record import JobEntry

MAX_NODES = 1_000
"""Nodes of one ops job."""
ASKED_AGAIN = 64
"""Nodes that are asked again in one round."""
GATHER_FOR = 2.0
"""Seconds after its submission for which nodes may join an ops job that were not known."""
MAX_NODES_TOLD = 10
"""Nodes without a result whose reasons the message of the job has."""


def too_many(nodes: Collection[PeerID]) -> jobs.NodesUnsuitable | None:
    """Why an ops job cannot run on all nodes that match, or None if it can."""
    if len(nodes) <= MAX_NODES:
        return None
    message = f"{len(nodes):,} nodes match, and an ops job runs on at most {MAX_NODES:,}; add Constraints"
    return jobs.NodesUnsuitable(message=message)


def gather(entry: JobEntry, now: UnixSeconds) -> None:
    """Let nodes join for a while: a requester that has just started knows few, and none knows all of a large
    network."""
    entry.gathers_until = now + GATHER_FOR + spread(len(entry.slots))


def is_wanted(entry: JobEntry, node: PeerID, now: UnixSeconds) -> bool:
    """Whether this node may take the job: it has not had it, and was there when it was submitted."""
    if node in entry.placement.seats:
        return is_waited_for(entry, node)
    return entry.slots[0].node is None or (now < entry.gathers_until and len(entry.slots) < MAX_NODES)


def slot_for(ledger: Ledger, entry: JobEntry, node: PeerID) -> Slot:
    """The slot of a node that is wanted. One that was not known gets a slot of its own."""
    if is_waited_for(entry, node):
        return entry.slots[entry.placement.seats[node]]
    slot = entry.slots[0]
    if slot.node is None:
        entry.placement.seat(slot, node)
    else:
        number = len(entry.slots)
        slot = Slot(number, group=number, node=node)
        entry.placement.add(slot)
    entry.job = entry.job.replace(nodes=(*entry.job.nodes, node))
    ledger.actions.append(ev.Store(entry.job))
    return slot


def waiting_nodes(entry: JobEntry) -> list[PeerID]:
    """The nodes of an ops job that have not taken it."""
    return [slot.node for slot in entry.open_slots if slot.node is not None]


def is_waited_for(entry: JobEntry, node: PeerID) -> bool:
    """Whether this node has not taken an ops job yet."""
    number = entry.placement.seats.get(node)
    return number is not None and entry.slots[number].execution is None


def nodes_to_ask(entry: JobEntry) -> Asked:
    """Who is asked: at first everybody, because not every node that matches may be known; later those alone
    that have not taken the job, some of them each time if they are many."""
    waiting, number = waiting_nodes(entry), entry.round.number
    if number == 1 or not waiting:
        return Asked(1.0, frozenset(waiting), 0.0, max(len(waiting), 1))
    start = (number - 2) * ASKED_AGAIN % len(waiting)
    nodes = (waiting[start:] + waiting[:start])[:ASKED_AGAIN]
    return Asked(1.0, frozenset(nodes), 0.0, len(nodes), directly=True)


def absent_at(entry: JobEntry, slot: Slot, liveness: Liveness) -> UnixSeconds:
    """When the node of an open slot is not waited for any longer, if it does not bid before."""
    if slot.execution is not None or entry.open_since is None:
        return inf
    ends = entry.open_since + entry.job.spec.queue_timeout
    if slot.node is None:
        return ends
    if slot.node not in liveness.nodes:  # or not known again, after a restart of the requester
        return min(ends, entry.open_since + LOST_WITHOUT_REPLACEMENT)
    broke = liveness.disconnected_at.get(slot.node)
    if broke is None or slot.node in entry.declined:  # one that is busy need not stay connected
        return ends
    return min(ends, max(broke, entry.open_since) + LOST_AFTER_SILENCE)


def next_absence(entry: JobEntry, liveness: Liveness, now: UnixSeconds) -> UnixSeconds:
    """When to `give_up_absent` next, at the latest."""
    due = entry.watchlist.absence
    if due is None or due <= now:
        due = min((absent_at(entry, slot, liveness) for slot in entry.open_slots), default=inf)
        entry.watchlist.absence = due
    return due


def note_absence(entry: JobEntry, node: PeerID, liveness: Liveness) -> None:
    """A node has gone, or its connection broke: if an ops job waits for it, it is given up sooner."""
    due = entry.watchlist.absence
    if due is not None and is_waited_for(entry, node):
        slot = entry.slots[entry.placement.seats[node]]
        entry.watchlist.absence = min(due, absent_at(entry, slot, liveness))


def give_up_absent(ledger: Ledger, entry: JobEntry, liveness: Liveness, now: UnixSeconds) -> None:
    """Do not wait any longer for nodes that are gone, or that found no room within the queue timeout."""
    due = next_absence(entry, liveness, now) <= now
    for slot in entry.open_slots if due else ():
        if now < absent_at(entry, slot, liveness):
            continue
        if slot.node is None:
            message = f"no node matched within the queue timeout of {entry.job.spec.queue_timeout:g} s"
            jobs.move(ledger, entry, jobs.NodesUnsuitable(message=message), now)
        else:
            absent = executions.NodeAbsent(message=_why_absent(entry, slot, liveness, now))
            executions.miss(ledger, entry, slot, absent, now)
    if not entry.is_open:
        entry.open_since = entry.round.ends = entry.round.next_at = None


def _why_absent(entry: JobEntry, slot: Slot, liveness: Liveness, now: UnixSeconds) -> str:
    assert slot.node is not None
    assert entry.open_since is not None
    timeout = entry.job.spec.queue_timeout
    if slot.node not in liveness.nodes:
        return "the node left before it took the job"
    if now < entry.open_since + timeout:
        return "lost contact with the node before it took the job"
    reason = entry.declined.get(slot.node, "did not answer")
    return f"the node did not take the job within the queue timeout of {timeout:g} s: {reason}"


def outcome(entry: JobEntry, completed: int) -> jobs.JobEvent:
    """What an ops job ends with when each of its nodes has ended, `completed` of them with a result."""
    total = len(entry.slots)
    if completed == total:
        return jobs.ResultsPublished(message=f"done on {total} node{'s'[: total != 1]}")
    missing = [each for each in entry.placed_executions() if each.published is None]
    reasons: dict[str, list[str]] = {}
    for each in missing[:MAX_NODES_TOLD]:
        reasons.setdefault(each.message.partition("\n")[0], []).append(each.node_id[-8:])
    told = "; ".join(f"{', '.join(sorted(nodes))}: {reason}" for reason, nodes in sorted(reasons.items()))
    more = f"; and {len(missing) - MAX_NODES_TOLD} more" if len(missing) > MAX_NODES_TOLD else ""
    return jobs.NodesFailed(message=f"{completed} of {total} nodes gave a result; {told}{more}")
