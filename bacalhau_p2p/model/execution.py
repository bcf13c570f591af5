"""Jobs and executions as their requester records them, and what an execution leaves behind."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from bacalhau_p2p.model.base import ExecutionID, JobID, Model, OpenModel, PeerID, UnixSeconds
from bacalhau_p2p.model.job import JobSpec, SpecConfig
from bacalhau_p2p.model.state import ExecutionState, JobState

INLINE_OUTPUT_LIMIT = 2048
"""Bytes of stdout and of stderr that travel inside messages."""


class RunOutput(OpenModel):
    """How a run ended. The streams are cut at `INLINE_OUTPUT_LIMIT`; the results folder has them whole."""

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False


class Proposal(OpenModel):
    """What a compute node claims a run gave, bound to job, execution and node.

    `result_cid` is the root of the results folder; `entries` gives the CID of each of its
    top-level entries, so that a job may say which of them must agree.
    """

    job_id: JobID
    execution_id: ExecutionID
    node_id: PeerID
    result_cid: str
    entries: Mapping[str, str] = Field(default_factory=dict)
    output: RunOutput = RunOutput()
    started: UnixSeconds = 0
    ended: UnixSeconds = 0


class PublishedResult(OpenModel):
    """Where a published result can be had.

    `type` is the publisher's; `params` its address in that publisher's terms (ipfs: `CID` and the
    `Providers`' multiaddrs; local: `CID` and `URL`).
    """

    cid: str
    location: SpecConfig


class Job(Model):
    """A submitted job. Times are UNIX seconds of the requester's clock."""

    id: JobID
    spec: JobSpec
    state: JobState
    message: str = ""
    requester_id: PeerID
    created: UnixSeconds
    modified: UnixSeconds
    revision: int = 1


class Execution(Model):
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
    """Its run goes on if the node's process dies, as a container does: the node is waited for longer."""
    slot: int | None = Field(default=None, ge=0)
    """The job's slot that it fills or filled, counted from 0; None until its bid is accepted."""
    permanent: bool = False
    """It failed, and its node says that another would fail alike."""
    drained: bool = False
    """Its node handed it back, unharmed: it does not count as an attempt."""
    input_bytes: int = 0
    """Bytes of the job's inputs, as far as the node could find them out when it bid."""
    local_input_bytes: int = 0
    """Those that it had already."""
