"""A job that is announced, and on which this node may bid."""

from __future__ import annotations

from dataclasses import dataclass

from bacalhau_p2p.bprotocol.messages import JobAnnounced
from bacalhau_p2p.components.undo import Undoable
from bacalhau_p2p.compute.bidding import Assessment, Findings
from bacalhau_p2p.compute.record import with_inputs
from bacalhau_p2p.model.base import JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.resources import Resources

Key = tuple[PeerID, JobID]
"""Its requester and its id: other requesters may use the same id."""


@dataclass(slots=True)
class ConsideredJob(Undoable):
    """From its announcement until this node bids or declines, and while it waits for room."""

    author: PeerID
    message: JobAnnounced
    """The latest announcement."""
    assessment: Assessment
    since: UnixSeconds
    """When its first announcement came."""
    bid_at: UnixSeconds
    """When to bid at the earliest: where not everybody may bid, a little later than the announcement."""
    findings: Findings | None
    """None while it is not inspected yet."""
    due: UnixSeconds
    """When to bid, or to stop the inspection."""
    late: bool = False
    """There was no room for it when it was announced."""

    @property
    def key(self) -> Key:
        return self.author, self.message.job_id

    @property
    def needs(self) -> Resources:
        """What it would reserve, as far as that is known."""
        return with_inputs(self.message.spec.resources, self.findings.disk if self.findings else 0)

    @property
    def urgency(self) -> tuple[int, UnixSeconds, JobID]:
        """The least comes first: jobs of higher priority, then older ones."""
        return -self.message.spec.priority, self.since, self.message.job_id
