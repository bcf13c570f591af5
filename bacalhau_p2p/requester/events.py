"""What goes into the requester's machine, and what it asks for in return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bacalhau_p2p.components.protocol import (
    Broadcast as Broadcast,
)
from bacalhau_p2p.components.protocol import (
    MessageReceived as MessageReceived,
)
from bacalhau_p2p.components.protocol import (
    Send as Send,
)
from bacalhau_p2p.components.protocol import (
    Store as Store,
)
from bacalhau_p2p.components.protocol import (
    TimePassed as TimePassed,
)
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job, Proposal
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.verifiers.interface import Verdict

# --- events -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    """A user submitted this valid job under this fresh id."""

    job_id: JobID
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class Resumed:
    """The store held this job, not yet ended, when the node started."""

    job: Job
    executions: Sequence[Execution]


@dataclass(frozen=True, slots=True)
class CancelRequested:
    job_id: JobID
    reason: str


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node told everybody about itself, for the first time or anew."""

    info: NodeInfo


@dataclass(frozen=True, slots=True)
class NodeWentStale:
    """A node has not been heard of for long."""

    peer: PeerID


@dataclass(frozen=True, slots=True)
class ConnectionBroke:
    peer: PeerID


@dataclass(frozen=True, slots=True)
class ConnectionStands:
    peer: PeerID


@dataclass(frozen=True, slots=True)
class Verified:
    """The verifier judged the proposals that the machine gave it."""

    job_id: JobID
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class VerifierFailed:
    job_id: JobID
    reason: str


Event = (
    Submitted
    | Resumed
    | CancelRequested
    | MessageReceived
    | NodeSeen
    | NodeWentStale
    | ConnectionBroke
    | ConnectionStands
    | Verified
    | VerifierFailed
    | TimePassed
)

# --- actions ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verify:
    """Judge these proposals, and answer with Verified or VerifierFailed."""

    rests_on_records: ClassVar[bool] = False
    """After a crash they are judged again."""

    job_id: JobID
    spec: JobSpec
    proposals: Sequence[Proposal]


Action = Store | Send | Broadcast | Verify
