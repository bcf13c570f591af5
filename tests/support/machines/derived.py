"""What a requester's job keeps up to date beside its records, derived anew from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from operator import attrgetter

from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.state import ExecutionState as S
from bacalhau_p2p.requester import supervision
from bacalhau_p2p.requester.groups import (
    ACTIVE,
    CONFIRMED,
    GONE,
    MAX_ATTEMPTS,
    SETTLED,
    Group,
)
from bacalhau_p2p.requester.machine import RequesterMachine
from bacalhau_p2p.requester.ops_nodes import absent_at
from bacalhau_p2p.requester.placement import Placement
from bacalhau_p2p.requester.record import JobEntry


def drifted(machine: RequesterMachine, now: float, faulty: Container[JobID] = ()) -> list[str]:
    """What is not as it should be in the machine's jobs after an event. What is due in `faulty` ones, whose
    handling raised, may be late."""
    found = list[str]()
    for entry in machine.jobs.values():
        if not entry.job.state.terminal:
            wrong = list(wrong_in(entry.placement))
            wrong += [] if entry.job.id in faulty else _late_in(machine, entry, now)
            found += [f"{entry.job.id}: {each}" for each in wrong]
    return found


def wrong_in(placement: Placement) -> Iterator[str]:
    """What a placement keeps that differs from what its slots and executions say."""
    for name, value in _derived(placement).items():
        kept = attrgetter(name)(placement)
        if kept != value:
            yield f"{name} is {kept} in place of {value}"


def _derived(placement: Placement) -> dict[str, object]:
    slots, executions = placement.slots, placement.executions.values()
    empty = [slot for slot in slots if slot.execution is None]
    active_on: dict[PeerID, dict[str, None]] = {}
    for each in executions:
        if each.state in ACTIVE:
            active_on.setdefault(each.node_id, {})[each.id] = None
    placed = [each for each in executions if each.slot is not None and placement.divided]
    shares = [(slots[each.slot or 0].group, each.node_id, each.state) for each in placed]
    groups = [_group(placement, number) for number in range(len({slot.group for slot in slots}))]
    parts = ACTIVE | SETTLED | {S.BID_RECEIVED}
    return {
        "open": [slot.number for slot in empty],
        "tried": sum(slot.attempts > 0 for slot in slots),
        "exhausted": {slot.number for slot in empty if slot.attempts >= MAX_ATTEMPTS},
        "seats": {slot.node: slot.number for slot in slots if slot.node is not None},
        "groups.all": groups,
        "groups.to_reopen": {
            n for n, each in enumerate(groups) if placement.groups.replaces and _is_abandoned(each)
        },
        "groups.to_judge": {n for n, each in enumerate(groups) if _is_ready(each)}
        - placement.groups.verifying,
        "bids": {each.id: None for each in executions if each.state is S.BID_RECEIVED},
        "active": {each.id: None for each in executions if each.state in ACTIVE},
        "nodes.active": active_on,
        "nodes.parts": Counter(each.node_id for each in executions if each.state in parts),
        "nodes.unpaid": Counter(each.node_id for each in executions if _is_unpaid(placement, each)),
        "nodes.working": Counter((group, node) for group, node, state in shares if state in ACTIVE | SETTLED),
        "nodes.failed": {(group, node): None for group, node, state in shares if state in GONE},
    }


def _group(placement: Placement, number: int) -> Group:
    slots = [slot for slot in placement.slots if slot.group == number]
    states = [placement.executions[slot.execution].state for slot in slots if slot.execution is not None]
    return Group(
        slots=slots,
        open=len(slots) - len(states),
        running=states.count(S.BID_ACCEPTED),
        proposed=states.count(S.RESULT_PROPOSED),
        confirmed=sum(state in CONFIRMED for state in states),
        gone=sum(state in GONE for state in states),
    )


def _is_abandoned(group: Group) -> bool:
    return group.gone > 0 and group.confirmed == 0


def _is_ready(group: Group) -> bool:
    return group.proposed > 0 and group.open == 0 and group.running == 0


def _is_unpaid(placement: Placement, execution: Execution) -> bool:
    return not placement.divided or execution.slot is None or execution.drained


def _late_in(machine: RequesterMachine, entry: JobEntry, now: float) -> Iterator[str]:
    """What is due before the machine looks at it."""
    watchlist, liveness = entry.watchlist, machine._liveness
    for each in entry.executions.values():
        if each.id in watchlist.changed:
            continue
        if each.state is S.BID_RECEIVED:
            due = entry.bids[each.id].expires
        elif each.state in ACTIVE:
            silent = liveness.unreachable_at(entry, each)
            if silent <= now:
                silent = liveness.lost_at(entry, each)
            due = min(silent, supervision._reconcile_at(entry, each))
        else:
            continue
        kept = watchlist.due.of(each.id)
        if (kept is None or kept > due) and due > now:
            yield f"{each.id} is looked at {kept} in place of {due}"
    if entry.ops and watchlist.absence is not None:
        due = min((absent_at(entry, slot, liveness) for slot in entry.open_slots), default=watchlist.absence)
        if due < watchlist.absence:
            yield f"absent nodes are given up {watchlist.absence} in place of {due}"
    first, kept = entry.watchlist.due.next(), machine._ledger.deadlines.of(entry.job.id)
    if first is not None and (kept is None or kept > first):
        yield f"the job is looked at {kept} in place of {first}"
