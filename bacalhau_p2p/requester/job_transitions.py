"""Every transition of a job at its requester: events, actions and the table that joins them.

`move` is the only function that changes the state of a job, and it does so only by a row of `TRANSITIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.transitions import InvalidTransition, Row
from bacalhau_p2p.model.base import PeerID, UnixSeconds
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester import execution_transitions as executions
from bacalhau_p2p.requester.history import submitted_text
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.record import JobEntry

S = JobState

# --- events -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """Something that happened to one job."""

    kind: ClassVar[EventKind] = EventKind.ENDED
    """As what its history tells of it."""
    told: ClassVar[str] = ""
    """What it tells of one without a message."""

    message: str
    """What the record says from now on, for the user to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesUnsuitable(JobEvent):
    """No node matches an ops job, or too many do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesFailed(JobEvent):
    """Every node of an ops job has ended, and some gave no result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFilled(JobEvent):
    """A bid was accepted."""

    kind = EventKind.RUNNING
    told = "a node has taken it"
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingPlaced(JobEvent):
    """A round ended, and no node has taken the job, or none has it any more."""

    kind = EventKind.WAITING


@dataclass(frozen=True, slots=True, kw_only=True)
class PartlyPlaced(JobEvent):
    """A round ended, and some slots are open."""

    kind = EventKind.WAITING


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAwaited(JobEvent):
    """A node whose execution fills a slot is unreachable, and the execution is not lost yet."""

    kind = EventKind.WAITING


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHeard(JobEvent):
    """Every slot is filled, and no node that was unreachable still is."""

    kind = EventKind.RUNNING
    told = "its nodes answer again"
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsPublished(JobEvent):
    """Every slot has settled, and at least one result is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsRejected(JobEvent):
    """The verifier accepted no result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationFailed(JobEvent):
    """The verifier could not judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptsExhausted(JobEvent):
    """A slot is open and has no attempt left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobImpossible(JobEvent):
    """Enough nodes report that no node can run the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTimedOut(JobEvent):
    """A slot was open for the whole queue timeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalTimedOut(JobEvent):
    """The job did not end within its total timeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRefused(JobEvent):
    """The requester's store refuses what is in the job's record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(JobEvent):
    """The user cancelled the job."""


# --- actions ------------------------------------------------------------------------------


def end_executions(ledger: Ledger, entry: JobEntry, event: JobEvent, now: UnixSeconds) -> None:
    """Reject every bid that is open and cancel every execution that fills a slot."""
    ended = executions.JobEnded(message=f"the job is {entry.job.state.lower()}", cause=event.message)
    for execution in entry.placement.end():
        executions.move(ledger, entry, execution, ended, now)


def close_bidding(ledger: Ledger, entry: JobEntry, event: JobEvent, now: UnixSeconds) -> None:
    """Tell the nodes that were asked that no more bids are wanted, if a slot was open."""
    if entry.open_since is not None:
        ledger.close(entry, str(entry.job.state), now)
    entry.open_since = entry.round.ends = entry.round.next_at = None


# --- the table ----------------------------------------------------------------------------

Action = Callable[[Ledger, JobEntry, JobEvent, UnixSeconds], None]

_END = (end_executions, close_bidding)

TRANSITIONS: dict[tuple[JobState | None, type], Row[JobState, Action]] = {
    (None, ev.Submitted): Row(S.PENDING),
    (S.PENDING, NodesUnsuitable): Row(S.FAILED, *_END),
    (S.PENDING, NodesFailed): Row(S.FAILED, *_END),
    (S.PENDING, SlotFilled): Row(S.RUNNING),
    (S.PENDING, NothingPlaced): Row(S.QUEUED),
    (S.PENDING, QueueTimedOut): Row(S.FAILED, *_END),
    (S.PENDING, TotalTimedOut): Row(S.FAILED, *_END),
    (S.PENDING, RecordRefused): Row(S.FAILED, *_END),
    (S.PENDING, Cancelled): Row(S.STOPPED, *_END),
    (S.QUEUED, SlotFilled): Row(S.RUNNING),
    (S.QUEUED, NothingPlaced): Row(S.QUEUED),
    (S.QUEUED, NodesUnsuitable): Row(S.FAILED, *_END),
    (S.QUEUED, NodesFailed): Row(S.FAILED, *_END),
    (S.QUEUED, ResultsRejected): Row(S.FAILED, *_END),
    (S.QUEUED, VerificationFailed): Row(S.FAILED, *_END),
    (S.QUEUED, AttemptsExhausted): Row(S.FAILED, *_END),
    (S.QUEUED, JobImpossible): Row(S.FAILED, *_END),
    (S.QUEUED, QueueTimedOut): Row(S.FAILED, *_END),
    (S.QUEUED, TotalTimedOut): Row(S.FAILED, *_END),
    (S.QUEUED, RecordRefused): Row(S.FAILED, *_END),
    (S.QUEUED, Cancelled): Row(S.STOPPED, *_END),
    (S.RUNNING, NothingPlaced): Row(S.QUEUED),
    (S.RUNNING, PartlyPlaced): Row(S.RUNNING),
    (S.RUNNING, NodeAwaited): Row(S.RUNNING),
    (S.RUNNING, NodeHeard): Row(S.RUNNING),
    (S.RUNNING, ResultsPublished): Row(S.COMPLETED, *_END),
    (S.RUNNING, NodesFailed): Row(S.FAILED, *_END),
    (S.RUNNING, ResultsRejected): Row(S.FAILED, *_END),
    (S.RUNNING, VerificationFailed): Row(S.FAILED, *_END),
    (S.RUNNING, AttemptsExhausted): Row(S.FAILED, *_END),
    (S.RUNNING, JobImpossible): Row(S.FAILED, *_END),
    (S.RUNNING, QueueTimedOut): Row(S.FAILED, *_END),
    (S.RUNNING, TotalTimedOut): Row(S.FAILED, *_END),
    (S.RUNNING, RecordRefused): Row(S.FAILED, *_END),
    (S.RUNNING, Cancelled): Row(S.STOPPED, *_END),
}


def begin(
    ledger: Ledger,
    event: ev.Submitted,
    requester: PeerID,
    now: UnixSeconds,
    *,
    nodes: tuple[PeerID, ...] = (),
) -> JobEntry:
    """A submission begins a job; if it is an ops job, one on these nodes."""
    job = Job(
        id=event.job_id,
        spec=event.spec,
        state=TRANSITIONS[None, ev.Submitted].to,
        message="waiting for bids",
        requester_id=requester,
        created=now,
        modified=now,
        nodes=nodes,
    )
    ledger.actions.append(ev.Store(job))
    entry = ledger.add(job)
    ledger.tell(entry, EventKind.SUBMITTED, submitted_text(event.spec, event.left_out), now, state=job.state)
    return entry


def move(ledger: Ledger, entry: JobEntry, event: JobEvent, now: UnixSeconds) -> None:
    """Change a job's state by the row for this event. Raises InvalidTransition.

    An event that changes neither the state nor the message leaves the record as it is.
    """
    job = entry.job
    row = TRANSITIONS.get((job.state, type(event)))
    if row is None:
        raise InvalidTransition(job.id, job.state, event)
    message = event.message[: say.MAX_REASON]
    changed = (job.state, job.message) != (row.to, message)
    if changed:
        entry.job = job.replace(state=row.to, message=message, modified=now, revision=job.revision + 1)
        ledger.actions.append(ev.Store(entry.job))
    for action in row.actions:
        action(ledger, entry, event, now)
    if changed:  # after what became of its executions, so that the end of a job is the last event
        ledger.tell(entry, event.kind, message or event.told, now, state=row.to)
