"""The states of jobs and executions, named as in Bacalhau."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """The state of a job."""

    PENDING = "Pending"
    """Announced; the first round of bids has not ended."""
    QUEUED = "Queued"
    """No node that can run the job has room at the moment. The job waits and is announced again."""
    RUNNING = "Running"
    """At least one bid was accepted."""
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    """Cancelled by the user."""

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL_JOB


class ExecutionState(StrEnum):
    """The state of an execution at the requester."""

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
    """Its node no longer answers."""
    CANCELLED = "Cancelled"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL_EXECUTION


class UnknownState(StrEnum):
    """A state of a later version of the protocol."""

    UNKNOWN = "Unknown"


class ComputeState(StrEnum):
    """The state of an execution at its compute node."""

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
