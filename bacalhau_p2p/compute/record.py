"""What a compute node records of one execution."""

from __future__ import annotations

from bacalhau_p2p.model.base import ExecutionID, JobID, Model, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.resources import Resources
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
    input_disk: int = 0
    """Bytes of disk that are kept for its inputs, beside what the job asks for."""
    result_cid: str | None = None
    sealed: bytes = b""
    """The proposal, as it is sent to the requester."""
    published: PublishedResult | None = None

    @property
    def reserves(self) -> Resources:
        """What is kept of the machine for it."""
        return with_inputs(self.spec.resources, self.input_disk)


def with_inputs(resources: Resources, disk: int) -> Resources:
    """What a job asks for and `disk` bytes for its inputs."""
    return resources.replace(disk=resources.disk + disk) if disk else resources
