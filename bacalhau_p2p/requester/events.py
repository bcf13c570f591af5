"""What goes into the requester's machine, and what it asks for in return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bacalhau_p2p.components.protocol import (
    Append as Append,
)
from bacalhau_p2p.components.protocol import (
    Broadcast as Broadcast,
)
from bacalhau_p2p.components.protocol import (
    MessageReceived as MessageReceived,
)
from bacalhau_p2p.components.protocol import (
    NotStored as NotStored,
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
    """A user submitted a valid job."""

    job_id: JobID
    spec: JobSpec
    left_out: Sequence[str] = ()
    """What the user's program left out of inputs that it added, each with the reason."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The store held a job that had not ended when the node started."""

    job: Job
    executions: Sequence[Execution]
    told: int = 0
    """Events that the store has of its history."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A user asked to stop a job."""

    job_id: JobID
    reason: str


@dataclass(frozen=True, slots=True)
class NodeInfoReceived:
    """A node published its info."""

    info: NodeInfo


@dataclass(frozen=True, slots=True)
class NodeWentStale:
    """A node has not published its info for too long."""

    peer: PeerID


@dataclass(frozen=True, slots=True)
class NodeDisconnected:
    """The connection to a node broke."""

    peer: PeerID


@dataclass(frozen=True, slots=True)
class NodeConnected:
    """There is a connection to a node."""

    peer: PeerID


@dataclass(frozen=True, slots=True)
class Verified:
    """The verifier judged the proposals of a Verify action."""

    job_id: JobID
    verdict: Verdict
    group: int = 0


@dataclass(frozen=True, slots=True)
class VerifierFailed:
    """The verifier could not judge the proposals of a Verify action."""

    job_id: JobID
    reason: str
    group: int = 0


Event = (
    Submitted
    | Resumed
    | CancelRequested
    | MessageReceived
    | NodeInfoReceived
    | NodeWentStale
    | NodeDisconnected
    | NodeConnected
    | Verified
    | VerifierFailed
    | NotStored
    | TimePassed
)

# --- actions ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verify:
    """Judge these proposals, and answer with Verified or VerifierFailed."""

    rests_on_records: ClassVar[bool] = False
    """After a crash the proposals are judged again."""

    job_id: JobID
    spec: JobSpec
    proposals: Sequence[Proposal]
    group: int = 0
    """Which executions of the job these are: those that do the same."""


@dataclass(frozen=True, slots=True)
class NodePenalised:
    """Tell the operator that a node is chosen last for so many seconds, because it wasted time."""

    rests_on_records: ClassVar[bool] = False

    node: PeerID
    lasts: float


Action = Store | Append | Send | Broadcast | Verify | NodePenalised
