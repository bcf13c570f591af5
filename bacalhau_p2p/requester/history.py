"""What the machine tells of a job in its history: kinds, texts and limits.

Pure, as a part of the requester's machine. `job_transitions` and `execution_transitions` tell of every
transition; `rounds` and `progress` of what is none.
"""

from __future__ import annotations

from collections.abc import Sequence

from bacalhau_p2p.bprotocol.messages import Bid, InputProgress
from bacalhau_p2p.model.execution import Proposal
from bacalhau_p2p.model.fetched_text import FETCHING, fetched_text
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.quantities import MAX_DURATION, duration, format_bytes
from bacalhau_p2p.model.state import ExecutionState

MAX_TEXT = 1_000
"""Characters of the message of an event; longer ones are cut."""
MAX_BIDDING_TEXT = 200
"""The same for events about bids: any node may cause them."""
MAX_EVENTS = 1_000
"""Events of one job that are kept, besides `EVENTS_PER_SLOT` and its end."""
EVENTS_PER_SLOT = 50
"""Events that are kept in addition for each slot of the job."""
MAX_BIDDING_EVENTS = 500
"""The same for events about bids, so that strangers leave room for others; and half of `EVENTS_PER_SLOT`."""

MAX_PREPARATION_EVENTS = 12
"""Events of one execution about how much of its inputs was fetched, and what else preparing it waits for."""
MAX_INPUTS_NAMED = 5
"""Inputs that such an event names."""

BIDDING = frozenset({EventKind.ANNOUNCED, EventKind.BID, EventKind.DECLINED, EventKind.BID_REJECTED})
"""Kinds of events that come as often as nodes bid, or refuse to."""

KINDS = {
    ExecutionState.BID_RECEIVED: EventKind.BID,
    ExecutionState.BID_ACCEPTED: EventKind.ACCEPTED,
    ExecutionState.RESULT_PROPOSED: EventKind.PROPOSED,
    ExecutionState.RESULT_ACCEPTED: EventKind.VERIFIED,
    ExecutionState.COMPLETED: EventKind.PUBLISHED,
    ExecutionState.BID_REJECTED: EventKind.BID_REJECTED,
    ExecutionState.RESULT_REJECTED: EventKind.REJECTED,
    ExecutionState.FAILED: EventKind.FAILED,
    ExecutionState.LOST: EventKind.LOST,
    ExecutionState.CANCELLED: EventKind.CANCELLED,
}
"""What a transition of an execution is told as, by the state that it leads to."""


def admitted(kind: EventKind, number: int, slots: int) -> EventKind | None:
    """As what an event is kept that would have this number in its job's history; None if it is not kept."""
    if kind is EventKind.ENDED:
        return kind
    limit = MAX_EVENTS + slots * EVENTS_PER_SLOT
    if number >= limit:
        return EventKind.OMITTED if number == limit else None
    if kind in BIDDING and number > MAX_BIDDING_EVENTS + slots * EVENTS_PER_SLOT // 2:
        return None
    return kind


def submitted_text(spec: JobSpec, left_out: Sequence[str]) -> str:
    """What is told of a submission. `left_out` is what is missing in inputs that were added for it."""
    if spec.is_ops:
        text = "submitted; for all nodes that match"
    elif spec.divided:
        text = f"submitted; divided into {spec.count} partition{'s'[: spec.count != 1]}"
    else:
        text = f"submitted; for {spec.count} node{'s'[: spec.count != 1]}"
    return f"{text}; left out of its inputs: {'; '.join(left_out)}" if left_out else text


def bid_text(bid: Bid) -> str:
    """What is told of a bid: what it is ranked by."""
    local = min(bid.local_input_bytes, bid.input_bytes)
    inputs = f"; has {format_bytes(local)} of {format_bytes(bid.input_bytes)} of inputs"
    return f"bid; its load is {100 * bid.load:.0f} %" + (inputs if bid.input_bytes else "")


def run_text(proposal: Proposal) -> str:
    """What is told of a run that has ended; not how, before the results are compared."""
    seconds = min(max(proposal.ended - proposal.started, 0.0), MAX_DURATION)
    return f"ran for {duration(seconds)}"


def fetching_text(inputs: Sequence[InputProgress], targets: Sequence[str]) -> str:
    """How much of the inputs of a job is on a node. `targets` are those of the job's own spec, in order."""
    known = list(zip(targets, inputs, strict=False))
    whole = _amount(inputs)
    if len(known) < 2:
        return FETCHING + whole
    open_inputs = [(target, each) for target, each in known if each.done != each.total]
    named = [f"{target} {_amount([each])}" for target, each in open_inputs[:MAX_INPUTS_NAMED]]
    return f"{FETCHING}{whole} ({', '.join(named)})" if named else FETCHING + whole


def _amount(inputs: Sequence[InputProgress]) -> str:
    totals = [each.total for each in inputs if each.total is not None]
    total = sum(totals) if len(totals) == len(inputs) else None
    return fetched_text(sum(each.done for each in inputs), total)
