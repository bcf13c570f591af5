"""Every transition of an execution at its compute node: events, actions and the table that joins them.

`move` is the only function that changes the state of an execution, and it does so only by a row of
`TRANSITIONS`. Messages of requesters and reports of steps are events as they come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.transitions import InvalidTransition, Row
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute.bidding import Findings
from bacalhau_p2p.compute.ledger import Ledger
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import ExecutionID, PeerID, UnixSeconds
from bacalhau_p2p.model.state import ComputeState

S = ComputeState

RESERVED_FOR = 3.0
"""Seconds for which room is reserved for a bid that is not accepted."""
ACCEPTED_LATE_FOR = 10.0
"""Seconds for which a bid can be accepted. After `RESERVED_FOR` that needs room which is still free."""
LAPSED_FOR = ACCEPTED_LATE_FOR - RESERVED_FOR
PROMPT = 0.8 * RESERVED_FOR
"""Seconds within which a requester rejects a bid that it does not want: it decides within half of
`RESERVED_FOR`, and the rest is for the way of both messages."""
PREPARE_TIMEOUT = 15 * 60.0
"""Seconds to fetch inputs and image."""
RUN_GRACE = 30.0
"""Seconds beyond the execution timeout after which a run is stopped that its executor has not ended."""
KEEP_PROPOSED_FOR = 24 * 3600.0
"""Seconds for which a result is kept for a requester that does not answer."""
PUBLISH_TIMEOUT = 15 * 60.0
"""Seconds to publish a result."""
REMEMBER_ENDED_FOR = 120.0
"""Seconds for which an ended execution stays in memory, to answer late messages with its reason."""
REPEAT_FAILURE_FOR = 3600.0
"""Seconds for which a failure is repeated to a requester that does not acknowledge it."""
REPEAT_UNKNOWN_FOR = 30.0
"""Seconds for which it is repeated that an execution is unknown. A requester asks again."""
HEARTBEAT_INTERVAL = 5.0
"""Seconds between two heartbeats."""

# --- events -------------------------------------------------------------------------------
# All others come from outside: see `events` and `bprotocol.messages`.


@dataclass(frozen=True, slots=True)
class BidPlaced:
    """This node bids on a job. Room for it is reserved."""

    requester: PeerID
    announcement: say.JobAnnounced
    findings: Findings
    outlives_node: bool
    late: bool = False
    """There was no room for it when the job was announced."""
    more: int = 0
    """How many further bids on the same job follow."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The state has lasted too long."""

    reason: str


@dataclass(frozen=True, slots=True)
class RoomLost:
    """The node has no room for it any more: it was restarted, or the bid was accepted late."""

    reason: str = "the node has no room for it any more"


@dataclass(frozen=True, slots=True)
class ReservationEnded:
    """The bid was not answered soon: its room is released. It can still be accepted if there is room."""


@dataclass(frozen=True, slots=True)
class ResultDisplaced:
    """There are too many results that are not published yet, and its requester has most of them."""

    reason: str = "newer results took its place, since its requester left too many without a verdict"


@dataclass(frozen=True, slots=True)
class RecordRefused:
    """The store of the node refuses what is in its record."""

    reason: str


@dataclass(frozen=True, slots=True)
class RequesterGone:
    """The node has heard nothing from its requester for long."""

    reason: str


@dataclass(frozen=True, slots=True)
class NodeStopped:
    """The node stops and hands the execution back."""

    reason: str = "the node was stopped"


# --- actions ------------------------------------------------------------------------------


def send_bid(ledger: Ledger, execution: ComputeExecution, event: BidPlaced, now: UnixSeconds) -> None:
    announcement, findings = event.announcement, event.findings
    ledger.actions.append(ev.LearnAddresses(event.requester, announcement.addresses))
    bid = say.Bid(
        job_id=execution.job_id,
        execution_id=execution.id,
        round=announcement.round,
        reserved_for=RESERVED_FOR,
        load=ledger.capacity.load,
        outlives_node=event.outlives_node,
        input_bytes=findings.input_bytes,
        local_input_bytes=findings.local_input_bytes,
        late=event.late,
        more=event.more,
    )
    ledger.actions.append(ev.Send(event.requester, bid, now + RESERVED_FOR, durable=False))


def note_accepted_bid(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    if not ledger.unused_bids.accepts(execution.requester_id):
        ledger.unused_bids.accepted(execution.requester_id)
        ledger.capacity.has_released = True  # it may have more than its share now


def note_unused_bid(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    ledger.unused_bids.left_unused(execution.requester_id, now)


def note_rejected_bid(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    if now - execution.created > PROMPT:
        ledger.unused_bids.left_unused(execution.requester_id, now)
    else:
        ledger.unused_bids.answered(execution.requester_id)


def start_heartbeats(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    if ledger.heartbeat_due is None:
        ledger.heartbeat_due = now + HEARTBEAT_INTERVAL


def watch_requester(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    ledger.presence.watch(execution.requester_id, now)


def prepare(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    ledger.actions.append(ev.Prepare(execution))


def run(ledger: Ledger, execution: ComputeExecution, event: ev.Prepared, now: UnixSeconds) -> None:
    ledger.actions.append(ev.Run(execution, outlives_node=event.outlives_node))


def publish(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    ledger.actions.append(ev.Publish(execution))


def stop_step(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    ledger.actions.append(ev.Stop(execution.id))


def release_room(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    ledger.capacity.release(execution.id)


def clean_up(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    ledger.actions.append(ev.CleanUp(execution))


def send_result_proposed(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    proposed = say.ResultProposed(job_id=execution.job_id, execution_id=execution.id, sealed=execution.sealed)
    ledger.actions.append(ev.Send(execution.requester_id, proposed, now + KEEP_PROPOSED_FOR))


def displace_results(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    while (displaced := ledger.kept_results.displaced_by(execution)) is not None:
        move(ledger, ledger.executions[displaced], ResultDisplaced(), now)


def send_result_published(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    assert execution.published is not None
    published = say.ResultPublished(
        job_id=execution.job_id, execution_id=execution.id, result=execution.published
    )
    ledger.actions.append(ev.Send(execution.requester_id, published, now + KEEP_PROPOSED_FOR))


def send_failed(
    ledger: Ledger,
    execution: ComputeExecution,
    event: ev.StepFailed | DeadlinePassed | RecordRefused | RoomLost | ResultDisplaced,
    now: UnixSeconds,
) -> None:
    failed = say.ExecutionFailed(
        job_id=execution.job_id,
        execution_id=execution.id,
        reason=event.reason[: say.MAX_REASON],
        permanent=isinstance(event, ev.StepFailed) and event.permanent,
        usage=event.usage if isinstance(event, ev.StepFailed) else None,
        kept_cid=event.kept_cid if isinstance(event, ev.StepFailed) else None,
    )
    ledger.actions.append(ev.Send(execution.requester_id, failed, now + REPEAT_FAILURE_FOR))


def send_drained(
    ledger: Ledger,
    execution: ComputeExecution,
    event: NodeStopped | RequesterGone | RoomLost | ev.EngineStopped,
    now: UnixSeconds,
) -> None:
    failed = say.ExecutionFailed(
        job_id=execution.job_id,
        execution_id=execution.id,
        reason=event.reason[: say.MAX_REASON],
        drained=True,
    )
    ledger.actions.append(ev.Send(execution.requester_id, failed, now + REPEAT_FAILURE_FOR))


# --- the table ----------------------------------------------------------------------------

Action = Callable[[Ledger, ComputeExecution, Any, UnixSeconds], None]

TRANSITIONS: dict[tuple[ComputeState | None, type], Row[ComputeState, Action]] = {
    (None, BidPlaced): Row(S.BID, send_bid),
    (S.BID, say.BidAccepted): Row(S.PREPARING, note_accepted_bid, prepare, start_heartbeats, watch_requester),
    (S.BID, say.BidRejected): Row(S.REJECTED, note_rejected_bid, release_room, clean_up),
    (S.BID, say.CancelExecution): Row(S.CANCELLED, release_room, clean_up),
    (S.BID, ReservationEnded): Row(S.BID, note_unused_bid, release_room),
    (S.BID, ev.RequesterCutOff): Row(S.EXPIRED, note_unused_bid, release_room, clean_up),
    (S.BID, RoomLost): Row(S.EXPIRED, send_drained, clean_up),
    (S.BID, DeadlinePassed): Row(S.EXPIRED, release_room, clean_up),
    (S.BID, RecordRefused): Row(S.EXPIRED, release_room, clean_up),
    (S.BID, NodeStopped): Row(S.CANCELLED, release_room, send_drained, clean_up),
    (S.PREPARING, ev.Prepared): Row(S.RUNNING, run),
    (S.PREPARING, ev.StepFailed): Row(S.FAILED, release_room, send_failed, clean_up),
    (S.PREPARING, ev.EngineStopped): Row(S.CANCELLED, release_room, send_drained, clean_up),
    (S.PREPARING, say.CancelExecution): Row(S.CANCELLED, stop_step, release_room, clean_up),
    (S.PREPARING, DeadlinePassed): Row(S.FAILED, stop_step, release_room, send_failed, clean_up),
    (S.PREPARING, RecordRefused): Row(S.FAILED, stop_step, release_room, send_failed, clean_up),
    (S.PREPARING, RoomLost): Row(S.FAILED, send_failed, clean_up),
    (S.PREPARING, NodeStopped): Row(S.CANCELLED, stop_step, release_room, send_drained, clean_up),
    (S.PREPARING, RequesterGone): Row(S.CANCELLED, stop_step, release_room, send_drained, clean_up),
    (S.RUNNING, ev.RunFinished): Row(S.PROPOSED, release_room, send_result_proposed, displace_results),
    (S.RUNNING, ev.RunVanished): Row(S.PREPARING, prepare),
    (S.RUNNING, ev.StepFailed): Row(S.FAILED, release_room, send_failed, clean_up),
    (S.RUNNING, say.CancelExecution): Row(S.CANCELLED, stop_step, release_room, clean_up),
    (S.RUNNING, DeadlinePassed): Row(S.FAILED, stop_step, release_room, send_failed, clean_up),
    (S.RUNNING, RecordRefused): Row(S.FAILED, stop_step, release_room, send_failed, clean_up),
    (S.RUNNING, RoomLost): Row(S.FAILED, send_failed, clean_up),
    (S.RUNNING, NodeStopped): Row(S.CANCELLED, stop_step, release_room, send_drained, clean_up),
    (S.RUNNING, RequesterGone): Row(S.CANCELLED, stop_step, release_room, send_drained, clean_up),
    (S.PROPOSED, say.ResultAccepted): Row(S.PUBLISHING, publish),
    (S.PROPOSED, say.ResultRejected): Row(S.REJECTED, clean_up),
    (S.PROPOSED, say.CancelExecution): Row(S.CANCELLED, clean_up),
    (S.PROPOSED, DeadlinePassed): Row(S.EXPIRED, clean_up),
    (S.PROPOSED, ResultDisplaced): Row(S.EXPIRED, clean_up),
    (S.PROPOSED, RecordRefused): Row(S.FAILED, send_failed, clean_up),
    (S.PROPOSED, NodeStopped): Row(S.CANCELLED, send_drained, clean_up),
    (S.PUBLISHING, ev.Published): Row(S.COMPLETED, send_result_published, clean_up),
    (S.PUBLISHING, ev.StepFailed): Row(S.FAILED, send_failed, clean_up),
    (S.PUBLISHING, say.CancelExecution): Row(S.CANCELLED, stop_step, clean_up),
    (S.PUBLISHING, DeadlinePassed): Row(S.FAILED, stop_step, send_failed, clean_up),
    (S.PUBLISHING, ResultDisplaced): Row(S.FAILED, stop_step, send_failed, clean_up),
    (S.PUBLISHING, RecordRefused): Row(S.FAILED, stop_step, send_failed, clean_up),
    (S.PUBLISHING, NodeStopped): Row(S.CANCELLED, stop_step, send_drained, clean_up),
}


_WITH_REASON = frozenset(kind for _, kind in TRANSITIONS if "reason" in kind.__annotations__)
"""Events whose reason becomes the message of the record."""

_RECORDED: dict[type, tuple[str, ...]] = {
    say.BidAccepted: ("partition",),
    ev.RunFinished: ("result_cid", "sealed", "result_bytes"),
    ev.Published: ("published",),
}
"""Fields of events that go into the record under the same name."""


def expects(state: ComputeState, event: object) -> bool:
    """Whether the table has a row for this event in this state."""
    return (state, type(event)) in TRANSITIONS


def begin(ledger: Ledger, execution_id: ExecutionID, event: BidPlaced, now: UnixSeconds) -> None:
    """Begin an execution with a bid. It is not stored: a requester that accepts it after a crash of this node
    is told that the execution is unknown."""
    row = TRANSITIONS[None, BidPlaced]
    execution = ComputeExecution(
        id=execution_id,
        job_id=event.announcement.job_id,
        requester_id=event.requester,
        spec=event.announcement.spec,
        state=row.to,
        created=now,
        modified=now,
        expires=now + RESERVED_FOR,
        input_disk=event.findings.disk,
        unsized_inputs=event.findings.unsized,
        input_sizes=event.findings.sizes,
    )
    ledger.remember(execution)
    for action in row.actions:
        action(ledger, execution, event, now)


def move(ledger: Ledger, execution: ComputeExecution, event: Any, now: UnixSeconds) -> None:
    """Change an execution's state by the row for this event. Raises InvalidTransition."""
    row = TRANSITIONS.get((execution.state, type(event)))
    if row is None:
        raise InvalidTransition(execution.id, execution.state, event)
    changes: dict[str, Any] = {
        "state": row.to,
        "message": event.reason[: say.MAX_REASON] if type(event) in _WITH_REASON else "",
        "modified": now,
        "expires": now + (LAPSED_FOR if row.to is S.BID else _time_limit(execution, row.to)),
    }
    for name in _RECORDED.get(type(event), ()):
        changes[name] = getattr(event, name)
    if row.to is S.PREPARING:
        changes["gpus"] = ledger.capacity.gpus_of(execution.id)
    moved = execution.replace(**changes)
    ledger.remember(moved)
    # What becomes of a bid is stored only when the bid is accepted.
    if execution.state is not S.BID or row.to is S.PREPARING:
        ledger.actions.append(ev.Store(moved))
    for action in row.actions:
        action(ledger, moved, event, now)


def _time_limit(execution: ComputeExecution, state: ComputeState) -> float:
    """Seconds that this state may last."""
    if state is S.RUNNING:
        return execution.spec.execution_timeout + RUN_GRACE
    return _TIME_LIMITS.get(state, REMEMBER_ENDED_FOR)


_TIME_LIMITS = {
    S.BID: RESERVED_FOR,
    S.PREPARING: PREPARE_TIMEOUT,
    S.PROPOSED: KEEP_PROPOSED_FOR,
    S.PUBLISHING: PUBLISH_TIMEOUT,
}
"""Seconds; an ended execution is remembered for `REMEMBER_ENDED_FOR`."""


def overdue(execution: ComputeExecution) -> DeadlinePassed:
    """The event for an execution whose state has lasted too long."""
    match execution.state:
        case S.BID:
            return DeadlinePassed(f"the bid was not answered within {ACCEPTED_LATE_FOR:g} s")
        case S.PREPARING:
            return DeadlinePassed(f"preparing took longer than {PREPARE_TIMEOUT:g} s")
        case S.RUNNING:
            limit = execution.spec.execution_timeout
            return DeadlinePassed(f"the run did not stop at its timeout of {limit:g} s")
        case S.PROPOSED:
            return DeadlinePassed(f"no verdict on the result within {KEEP_PROPOSED_FOR:g} s")
        case _:
            return DeadlinePassed(f"publishing took longer than {PUBLISH_TIMEOUT:g} s")
