"""Jobs and executions as the requester stores them, and the results of an execution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from bacalhau_p2p.model.base import ClosedModel, ExecutionID, JobID, Model, PeerID, UnixSeconds
from bacalhau_p2p.model.fields import CIDText, Name
from bacalhau_p2p.model.job import JobSpec, SpecConfig
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.model.usage import Usage
from bacalhau_p2p.model.wire_types import BoundedExecutionID, BoundedJobID, BoundedPeerID

INLINE_OUTPUT_LIMIT = 2048
"""Bytes of stdout, and of stderr, that messages carry."""
RUN_HAS_BEGUN = "running"
"""The message of an accepted bid once its node reports that the run has begun."""
MAX_WALLS = 16
"""Names in the walls of a run."""


class RunOutput(Model):
    """How a run ended. The streams are cut at `INLINE_OUTPUT_LIMIT`; the results folder has all of them."""

    exit_code: Annotated[int, Field(ge=-(2**31), le=2**32 - 1)] = 0
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False


class Proposal(Model):
    """The result that a compute node proposes, bound to job, execution and node.

    `result_cid` is the root of the results folder. `entries` has the CID of each top-level entry, so that a
    job can choose which of them are compared.
    """

    job_id: BoundedJobID
    execution_id: BoundedExecutionID
    node_id: BoundedPeerID
    result_cid: CIDText
    entries: Mapping[str, CIDText] = Field(default_factory=dict)
    output: RunOutput = RunOutput()
    walls: Annotated[tuple[Name, ...], Field(max_length=MAX_WALLS)] = ()
    """What kept the run from the rest of the node's machine, by the node's own account."""
    started: UnixSeconds = 0
    ended: UnixSeconds = 0
    usage: Usage | None = None


class PublishedResult(Model):
    """Where a published result is available.

    The location's `type` is the publisher's; its `params` depend on the publisher (ipfs: `CID`, and the
    multiaddrs of the `Providers`; local: `CID` and `URL`).
    """

    cid: CIDText
    location: SpecConfig


class Job(ClosedModel):
    """A submitted job. Times are UNIX seconds of the requester's clock."""

    id: JobID
    spec: JobSpec
    state: JobState
    message: str = ""
    requester_id: PeerID
    created: UnixSeconds
    modified: UnixSeconds
    revision: int = 1
    nodes: tuple[PeerID, ...] = ()
    """Where an ops job runs: the nodes that matched when it was submitted, one slot for each."""


class Execution(ClosedModel):
    """One attempt at a job on one node. Times are UNIX seconds of the requester's clock."""

    id: ExecutionID
    job_id: JobID
    node_id: PeerID
    state: ExecutionState
    message: str = ""
    created: UnixSeconds
    modified: UnixSeconds
    proposal: Proposal | None = None
    published: PublishedResult | None = None
    outlives_node: bool = False
    """Its run continues when the node's process dies, as a container does: the requester waits longer."""
    slot: int | None = Field(default=None, ge=0)
    """The slot of the job that it fills or filled, counted from 0; None until its bid is accepted."""
    permanent: bool = False
    """It failed in a way that would fail on any node, as its node reports."""
    drained: bool = False
    """Its node handed it back: it was drained, or its engine stopped. It does not count as an attempt."""
    input_bytes: int = 0
    """Bytes of the job's inputs whose size the node knew when it bid."""
    local_input_bytes: int = 0
    """Those of them that were already on the node."""
    failed_usage: Usage | None = None
    """What it used before it failed; what it used for a result is in its proposal."""

    failed_cid: CIDText | None = None
    """What it left in its result paths before it failed, if its job asked for that."""

    @property
    def usage(self) -> Usage | None:
        """What it used, by its node's own account."""
        return self.failed_usage or (self.proposal.usage if self.proposal is not None else None)
