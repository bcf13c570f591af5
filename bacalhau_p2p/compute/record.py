"""The record of an execution at its compute node."""

from __future__ import annotations

from bacalhau_p2p.model.base import ClosedModel, ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import NO_SPEC, JobSpec
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import ComputeState


class ComputeExecution(ClosedModel):
    """An execution of a job on this node. Times are UNIX seconds of this node's clock."""

    id: ExecutionID
    job_id: JobID
    requester_id: PeerID
    spec: JobSpec
    state: ComputeState
    message: str = ""
    created: UnixSeconds
    modified: UnixSeconds
    expires: UnixSeconds
    """When its state has lasted too long."""
    partition: int = 0
    """Which partition of the job it does, counted from 0, as its requester says."""
    input_disk: int = 0
    """Bytes of disk that are reserved for its inputs, in addition to what the job requests."""
    unsized_inputs: bool = False
    """It has inputs of unknown size, for which nothing is reserved."""
    input_sizes: tuple[tuple[int, int] | None, ...] = ()
    """Bytes of each input, and how many of them were on this node before the bid; None is unknown."""
    gpus: tuple[str, ...] = ()
    """The ids of the GPUs that it has for itself, if this node knows them."""
    result_cid: str | None = None
    result_bytes: int = 0
    """Bytes of the files of the result."""
    sealed: bytes = b""
    """The proposal, encrypted for the requester."""
    published: PublishedResult | None = None

    @property
    def reserves(self) -> Resources:
        """What it reserves of the node's capacity."""
        return with_inputs(self.spec.resources, self.input_disk)


def without_spec(execution: ComputeExecution) -> ComputeExecution:
    """An ended execution as late messages need it: strangers choose how large the rest is."""
    return execution.replace(spec=NO_SPEC, sealed=b"")


def with_inputs(resources: Resources, disk: int) -> Resources:
    """What a job requests, and `disk` bytes for its inputs."""
    return resources.replace(disk=resources.disk + disk) if disk else resources
