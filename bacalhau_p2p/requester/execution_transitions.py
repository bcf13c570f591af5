"""Every transition of an execution at the requester: events, actions and the table that joins them.

`move` is the only function that changes the state of an execution, and it does so only by a row of
`TRANSITIONS`. Whoever calls it has already turned a message, a verdict or a deadline into an event of this
one execution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.transitions import InvalidTransition, Row
from bacalhau_p2p.model.base import ExecutionID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Execution, Proposal, PublishedResult
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.model.usage import Usage
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.groups import Slot
from bacalhau_p2p.requester.history import KINDS, bid_text, run_text
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.record import BidTerms, JobEntry

S = ExecutionState

REPEAT_ACCEPTANCE_FOR = 15.0
"""Seconds for which the acceptance of a bid is repeated at least: an answer comes also if it is too late."""
RETRY_PAUSES = (1.0, 5.0)
"""Seconds from the first, and from each further, failed attempt of a slot to the next announcement."""
REPEAT_REJECTION_FOR = 60.0
"""Seconds for which the rejection of a bid is repeated; the bid itself expires sooner."""

# --- events -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionEvent:
    """Something that happened to one execution."""

    recorded: ClassVar[tuple[str, ...]] = ()
    """The fields that go into the execution's record."""

    message: str
    """What the record says from now on, for the user to read."""

    @property
    def told_as(self) -> EventKind | None:
        """As what the history of its job tells of it; None: as the state says that it leads to."""
        return None

    @property
    def told(self) -> str:
        """What the history tells of it."""
        return self.message

    @property
    def cancel_reason(self) -> str:
        """The reason in the cancellation that the node gets, if it gets one."""
        return self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAbsent(ExecutionEvent):
    """A node of an ops job has not taken it, and is not waited for any longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BidChosen(ExecutionEvent):
    """A round ended, and this bid fills a slot."""

    recorded = ("slot",)
    slot: int
    message: str = "accepted; preparing"


@dataclass(frozen=True, slots=True, kw_only=True)
class BidNotChosen(ExecutionEvent):
    """A round ended, and other bids were better."""

    message: str = "other bids were better"


@dataclass(frozen=True, slots=True, kw_only=True)
class BidWithdrawn(ExecutionEvent):
    """The node has withdrawn its bid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BidExpired(ExecutionEvent):
    """The node's reservation for the bid has ended."""

    message: str = "the bid expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressReported(ExecutionEvent):
    """The node prepares or runs it."""

    doing: EventKind

    @property
    def told_as(self) -> EventKind | None:
        return self.doing


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalOpened(ExecutionEvent):
    """The node proposes this result."""

    recorded = ("proposal",)
    proposal: Proposal
    message: str = "ran; waiting for verification"

    @property
    def told(self) -> str:
        return run_text(self.proposal)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalInvalid(ExecutionEvent):
    """The node sent a proposal that cannot be opened, or one for another execution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReported(ExecutionEvent):
    """The node could not prepare, run or publish it. `permanent`: it says that no other node could."""

    recorded = ("permanent", "failed_usage", "failed_cid")
    permanent: bool = False
    failed_usage: Usage | None = None
    failed_cid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDrained(ExecutionEvent):
    """The node hands the execution back: it stops, has no room, or its engine stopped."""

    recorded = ("drained",)
    drained: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLost(ExecutionEvent):
    """The node has not been in contact for too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictAccepted(ExecutionEvent):
    """The verifier accepted the result."""

    exit_code: int | None
    message: str = "verified; publishing"

    @property
    def told(self) -> str:
        return self.message if self.exit_code is None else f"its exit code is {self.exit_code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRejected(ExecutionEvent):
    """The verifier rejected the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(ExecutionEvent):
    """The node published the result that was verified."""

    recorded = ("published",)
    published: PublishedResult
    message: str = "published"

    @property
    def told(self) -> str:
        return f"its result is {self.published.cid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongResultPublished(ExecutionEvent):
    """The node published another result than the one that was verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRefused(ExecutionEvent):
    """The requester's store refuses what its node reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded(ExecutionEvent):
    """The job ended, and `cause` is its message."""

    cause: str

    @property
    def cancel_reason(self) -> str:
        return f"{self.message}: {self.cause}"


# --- actions ------------------------------------------------------------------------------


def send_bid_accepted(
    ledger: Ledger, entry: JobEntry, execution: Execution, event: ExecutionEvent, now: UnixSeconds
) -> None:
    reserved = entry.bids[execution.id].expires - now
    ledger.send(
        execution,
        say.BidAccepted,
        now,
        repeat_for=max(reserved, REPEAT_ACCEPTANCE_FOR),
        partition=entry.partition_of(execution),
    )


def send_bid_rejected(
    ledger: Ledger, entry: JobEntry, execution: Execution, event: ExecutionEvent, now: UnixSeconds
) -> None:
    # After a crash it is not needed: the bid expires on its node.
    ledger.send(
        execution,
        say.BidRejected,
        now,
        repeat_for=REPEAT_REJECTION_FOR,
        durable=False,
        reason=event.message,
    )


def send_result_accepted(
    ledger: Ledger, entry: JobEntry, execution: Execution, event: ExecutionEvent, now: UnixSeconds
) -> None:
    ledger.send(execution, say.ResultAccepted, now)


def send_result_rejected(
    ledger: Ledger, entry: JobEntry, execution: Execution, event: ExecutionEvent, now: UnixSeconds
) -> None:
    ledger.send(execution, say.ResultRejected, now, reason=event.message)


def send_cancel(
    ledger: Ledger, entry: JobEntry, execution: Execution, event: ExecutionEvent, now: UnixSeconds
) -> None:
    ledger.send(execution, say.CancelExecution, now, reason=event.cancel_reason)


def fill_slot(
    ledger: Ledger, entry: JobEntry, execution: Execution, event: ExecutionEvent, now: UnixSeconds
) -> None:
    assert execution.slot is not None
    slot = entry.slots[execution.slot]
    entry.placement.fill(slot, execution)
    entry.placement.count_attempt(slot)
    entry.last_contact[execution.id] = now


def open_slot(
    ledger: Ledger, entry: JobEntry, execution: Execution, event: ExecutionEvent, now: UnixSeconds
) -> None:
    """Open the slot, unless another node publishes the same result or no other node may fill it."""
    entry.record_failure(execution, event.message)
    if entry.is_final(execution):
        return
    slot = entry.placement.slot_of(execution)
    if slot is not None and execution.state is S.FAILED:
        pause = RETRY_PAUSES[min(slot.attempts, len(RETRY_PAUSES)) - 1]
        entry.retry_at = max(entry.retry_at, now + pause)
    if slot is not None and not entry.is_published_elsewhere(execution):
        entry.placement.reopen(slot)
        entry.watchlist.absence = None


def take_back_attempt(
    ledger: Ledger, entry: JobEntry, execution: Execution, event: ExecutionEvent, now: UnixSeconds
) -> None:
    """Do not count the execution as an attempt: the job was not at fault."""
    slot = entry.placement.slot_of(execution)
    if slot is not None:
        entry.placement.count_attempt(slot, -1)


# --- the table ----------------------------------------------------------------------------

Action = Callable[[Ledger, JobEntry, Execution, ExecutionEvent, UnixSeconds], None]

TRANSITIONS: dict[tuple[ExecutionState | None, type], Row[ExecutionState, Action]] = {
    (None, say.Bid): Row(S.BID_RECEIVED),
    (None, NodeAbsent): Row(S.FAILED),
    (S.BID_RECEIVED, BidChosen): Row(S.BID_ACCEPTED, fill_slot, send_bid_accepted),
    (S.BID_RECEIVED, BidNotChosen): Row(S.BID_REJECTED, send_bid_rejected),
    (S.BID_RECEIVED, BidWithdrawn): Row(S.FAILED),
    (S.BID_RECEIVED, BidExpired): Row(S.BID_REJECTED),
    (S.BID_RECEIVED, JobEnded): Row(S.BID_REJECTED, send_bid_rejected),
    (S.BID_ACCEPTED, ProgressReported): Row(S.BID_ACCEPTED),
    (S.BID_ACCEPTED, ProposalOpened): Row(S.RESULT_PROPOSED),
    (S.BID_ACCEPTED, ProposalInvalid): Row(S.FAILED, open_slot, send_cancel),
    (S.BID_ACCEPTED, FailureReported): Row(S.FAILED, open_slot),
    (S.BID_ACCEPTED, NodeDrained): Row(S.LOST, take_back_attempt, open_slot),
    (S.BID_ACCEPTED, NodeLost): Row(S.LOST, open_slot, send_cancel),
    (S.BID_ACCEPTED, RecordRefused): Row(S.FAILED, open_slot, send_cancel),
    (S.BID_ACCEPTED, JobEnded): Row(S.CANCELLED, send_cancel),
    (S.RESULT_PROPOSED, VerdictAccepted): Row(S.RESULT_ACCEPTED, send_result_accepted),
    (S.RESULT_PROPOSED, VerdictRejected): Row(S.RESULT_REJECTED, send_result_rejected),
    (S.RESULT_PROPOSED, FailureReported): Row(S.FAILED, open_slot),
    (S.RESULT_PROPOSED, NodeDrained): Row(S.LOST, take_back_attempt, open_slot),
    (S.RESULT_PROPOSED, NodeLost): Row(S.LOST, open_slot, send_cancel),
    (S.RESULT_PROPOSED, RecordRefused): Row(S.FAILED, open_slot, send_cancel),
    (S.RESULT_PROPOSED, JobEnded): Row(S.CANCELLED, send_cancel),
    (S.RESULT_ACCEPTED, Published): Row(S.COMPLETED),
    (S.RESULT_ACCEPTED, WrongResultPublished): Row(S.FAILED, open_slot, send_cancel),
    (S.RESULT_ACCEPTED, FailureReported): Row(S.FAILED, open_slot),
    (S.RESULT_ACCEPTED, NodeDrained): Row(S.LOST, take_back_attempt, open_slot),
    (S.RESULT_ACCEPTED, NodeLost): Row(S.LOST, open_slot, send_cancel),
    (S.RESULT_ACCEPTED, RecordRefused): Row(S.FAILED, open_slot, send_cancel),
    (S.RESULT_ACCEPTED, JobEnded): Row(S.CANCELLED, send_cancel),
}


def expects(state: ExecutionState, kind: type[ExecutionEvent]) -> bool:
    """Whether the table has a row for such an event in this state."""
    return (state, kind) in TRANSITIONS


def begin(ledger: Ledger, entry: JobEntry, author: PeerID, bid: say.Bid, now: UnixSeconds) -> Execution:
    """Begin an execution with a bid. It is not stored: after a crash of the requester the bid expires on
    its node."""
    execution = Execution(
        id=bid.execution_id,
        job_id=entry.job.id,
        node_id=author,
        state=TRANSITIONS[None, say.Bid].to,
        created=now,
        modified=now,
        outlives_node=bid.outlives_node,
        input_bytes=bid.input_bytes,
        local_input_bytes=min(bid.local_input_bytes, bid.input_bytes),
    )
    entry.update(execution)
    entry.bids[execution.id] = BidTerms(load=bid.load, expires=now + bid.reserved_for)
    ledger.job_of[execution.id] = entry.job.id
    tell(ledger, entry, execution, EventKind.BID, bid_text(bid), now)
    return execution


def miss(ledger: Ledger, entry: JobEntry, slot: Slot, event: NodeAbsent, now: UnixSeconds) -> None:
    """Note for its user that the node of a slot will not run the job: as an execution that failed."""
    assert slot.node is not None
    execution = Execution(
        id=_new_id(ledger, entry, slot.node),
        job_id=entry.job.id,
        node_id=slot.node,
        state=TRANSITIONS[None, NodeAbsent].to,
        message=event.message,
        created=now,
        modified=now,
        slot=slot.number,
    )
    entry.update(execution)
    ledger.job_of[execution.id] = entry.job.id
    entry.placement.fill(slot, execution)
    ledger.actions.append(ev.Store(execution))
    entry.record_failure(execution, event.message)
    tell(ledger, entry, execution, KINDS[execution.state], event.message, now)


def _new_id(ledger: Ledger, entry: JobEntry, node: PeerID) -> ExecutionID:
    """An id for what never was a bid. Anybody may have bid with the same one."""
    attempt = 1
    while True:
        name = f"{entry.job.id}\n{node}\n{attempt}"
        digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        found = ExecutionID("-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32])))
        if found not in ledger.job_of:
            return found
        attempt += 1


def move(
    ledger: Ledger, entry: JobEntry, execution: Execution, event: ExecutionEvent, now: UnixSeconds
) -> None:
    """Change an execution's state by the row for this event. Raises InvalidTransition."""
    row = TRANSITIONS.get((execution.state, type(event)))
    if row is None:
        raise InvalidTransition(execution.id, execution.state, event)
    changes: dict[str, Any] = {"state": row.to, "message": event.message, "modified": now}
    for name in event.recorded:
        changes[name] = getattr(event, name)
    moved = execution.replace(**changes)
    entry.update(moved)
    ledger.actions.append(ev.Store(moved))
    tell(ledger, entry, moved, event.told_as or KINDS[row.to], event.told, now)
    for action in row.actions:
        action(ledger, entry, moved, event, now)


def tell(
    ledger: Ledger, entry: JobEntry, execution: Execution, kind: EventKind, message: str, now: UnixSeconds
) -> None:
    """Append an event about an execution to the history of its job. That of a divided job names the
    partition."""
    if entry.divided and execution.slot is not None:
        partition = f"partition {entry.partition_of(execution)}"
        message = f"{partition}: {message}" if message else partition
    ledger.tell(
        entry,
        kind,
        message,
        now,
        state=execution.state,
        execution_id=execution.id,
        node_id=execution.node_id,
    )
