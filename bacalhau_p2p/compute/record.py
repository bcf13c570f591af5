"""What a compute node records of one execution."""

from __future__ import annotations

from bacalhau_p2p.model.base import ExecutionID, JobID, Model, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.state import ComputeState


class ComputeExecution(Model):
    """One attempt of this node at a job. Times are UNIX seconds of this node's clock."""

    id: ExecutionID
    job_id: JobID
    requester_id: PeerID
    spec: JobSpec
    state: ComputeState
    message: str = ""
    created: UnixSeconds
    modified: UnixSeconds
    expires: UnixSeconds
    """When the present state has lasted too long."""
    result_cid: str | None = None
    sealed: bytes = b""
    """The proposal, as it is sent to the requester."""
    published: PublishedResult | None = None
