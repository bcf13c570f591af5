"""The states of jobs and executions, in Bacalhau's words."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is in its life, as its requester sees it."""

    PENDING = "Pending"
    """Accepted for submission and announced; no round of bids has ended yet."""
    QUEUED = "Queued"
    """A round ended and nobody who can run it had room: it waits and is announced again."""
    RUNNING = "Running"
    """At least one bid was accepted."""
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    """Cancelled by its user."""

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL_JOB


class ExecutionState(StrEnum):
    """Where one attempt at a job is, as its requester sees it."""

    BID_RECEIVED = "BidReceived"
    BID_ACCEPTED = "BidAccepted"
    """The node prepares or runs it."""
    RESULT_PROPOSED = "ResultProposed"
    RESULT_ACCEPTED = "ResultAccepted"
    """The node publishes it."""
    COMPLETED = "Completed"
    BID_REJECTED = "BidRejected"
    RESULT_REJECTED = "ResultRejected"
    FAILED = "Failed"
    LOST = "Lost"
    """Its node fell silent."""
    CANCELLED = "Cancelled"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL_EXECUTION


class ComputeState(StrEnum):
    """Where one attempt at a job is, as the compute node that makes it sees it."""

    BID = "Bid"
    PREPARING = "Preparing"
    RUNNING = "Running"
    PROPOSED = "Proposed"
    PUBLISHING = "Publishing"
    COMPLETED = "Completed"
    REJECTED = "Rejected"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    EXPIRED = "Expired"
    """The requester never answered the bid."""

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL_COMPUTE


_TERMINAL_JOB = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.STOPPED})
_TERMINAL_EXECUTION = frozenset(
    {
        ExecutionState.COMPLETED,
        ExecutionState.BID_REJECTED,
        ExecutionState.RESULT_REJECTED,
        ExecutionState.FAILED,
        ExecutionState.LOST,
        ExecutionState.CANCELLED,
    }
)
_TERMINAL_COMPUTE = frozenset(
    {
        ComputeState.COMPLETED,
        ComputeState.REJECTED,
        ComputeState.FAILED,
        ComputeState.CANCELLED,
        ComputeState.EXPIRED,
    }
)
