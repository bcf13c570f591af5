"""The history of a job: what happened to it, in order, as its requester tells it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds


class EventKind(StrEnum):
    """What an event of a history is about. `docs/api.md` has them in prose."""

    SUBMITTED = "Submitted"
    RESUMED = "Resumed"
    ANNOUNCED = "Announced"
    BID = "Bid"
    DECLINED = "Declined"
    BID_REJECTED = "BidRejected"
    ACCEPTED = "Accepted"
    PREPARING = "Preparing"
    RUNNING = "Running"
    PROPOSED = "Proposed"
    VERIFIED = "Verified"
    REJECTED = "Rejected"
    PUBLISHED = "Published"
    FAILED = "Failed"
    LOST = "Lost"
    CANCELLED = "Cancelled"
    WAITING = "Waiting"
    RETRIED = "Retried"
    OMITTED = "Omitted"
    ENDED = "Ended"


class HistoryEvent(NamedTuple):
    """One event in the history of a job. A plain tuple: each job makes about ten."""

    job_id: JobID
    number: int
    """Counts the events of a job, from 1 and without a gap."""
    time: UnixSeconds
    """By the requester's clock."""
    kind: EventKind
    message: str
    """For people to read."""
    state: str = ""
    """The state of the job, or of the execution if there is one, from now on; empty if it has not changed."""
    execution_id: ExecutionID = ExecutionID("")
    """Empty for an event of the job as a whole."""
    node_id: PeerID = PeerID("")
    """The node that the event is about, if it is about one."""
    place: int = 0
    """Its place among the events of all jobs, for an event of a `Feed`; otherwise 0."""


class FeedPage(NamedTuple):
    """Some events of all jobs, in the order in which they were committed.

    One of kind `Omitted` that is of no job tells how many events are missing before the next one: they were
    deleted with their jobs.
    """

    events: Sequence[HistoryEvent]
    last: int
    """The place up to which all were looked at: where the next page begins."""


class HistoryPage(NamedTuple):
    """Some events of a history, in order."""

    events: Sequence[HistoryEvent]
    ended: bool
    """Whether the job has ended, and these are its last events."""
