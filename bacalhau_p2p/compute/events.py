"""What goes into the compute machine, and what it asks for in return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bacalhau_p2p.bprotocol.messages import InputProgress, JobAnnounced, JobOutlined
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
from bacalhau_p2p.compute.bidding import Assessment, Findings
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.usage import Usage

# --- events -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnnouncementReceived:
    """A requester announced a job, and this node has assessed it. `author` is authenticated."""

    author: PeerID
    message: JobAnnounced
    assessment: Assessment


@dataclass(frozen=True, slots=True)
class OutlineReceived:
    """A requester announced a large job, and this node has assessed its outline."""

    author: PeerID
    message: JobOutlined
    assessment: Assessment


@dataclass(frozen=True, slots=True)
class SpecReceived:
    """The spec of a large job came: from now on it is like any other announced job."""

    author: PeerID
    message: JobAnnounced
    assessment: Assessment


@dataclass(frozen=True, slots=True)
class SpecRefused:
    """What came as the spec of a large job is not what its requester announced."""

    author: PeerID
    job_id: JobID
    reason: str


@dataclass(frozen=True, slots=True)
class Recalled:
    """The store holds an ended execution that the machine has forgotten, and its requester asks about it."""

    execution: ComputeExecution


@dataclass(frozen=True, slots=True)
class Inspected:
    """The inspection of a job has ended."""

    requester: PeerID
    job_id: JobID
    findings: Findings
    only_if_local: bool = False
    """As it was in `Inspect`."""


@dataclass(frozen=True, slots=True)
class PreparationTold:
    """How far the preparation of an execution is: how much of each input is on this node, in the order of the
    job, or what it is `doing`."""

    execution_id: ExecutionID
    inputs: tuple[InputProgress, ...] = ()
    doing: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Inputs and image are prepared."""

    execution_id: ExecutionID
    outlives_node: bool = True
    """Its run will continue without the process of this node."""


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run ended, and its results folder is in the block store under this CID."""

    execution_id: ExecutionID
    result_cid: str
    sealed: bytes
    result_bytes: int = 0
    """Bytes of its files."""


@dataclass(frozen=True, slots=True)
class RunVanished:
    """Nothing is left of a run that an earlier process of this node began."""

    execution_id: ExecutionID


@dataclass(frozen=True, slots=True)
class Published:
    """The result is published."""

    reason: ClassVar[str] = "published"

    execution_id: ExecutionID
    published: PublishedResult


@dataclass(frozen=True, slots=True)
class StepFailed:
    """Preparing, running or publishing failed."""

    execution_id: ExecutionID
    reason: str
    permanent: bool
    usage: Usage | None = None
    """What the run used until then, if there was one."""
    kept_cid: str | None = None
    """What it left, if that is kept."""


@dataclass(frozen=True, slots=True)
class EngineStopped:
    """Preparing failed because the engine does not work now. Nothing is wrong with the execution."""

    execution_id: ExecutionID
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The store held an execution when the node started."""

    execution: ComputeExecution


@dataclass(frozen=True, slots=True)
class RequesterCutOff:
    """A peer exceeded its budget. The node takes nothing from it for a while."""

    reason: ClassVar[str] = "its requester was cut off, since it exceeded its budget"

    requester: PeerID


@dataclass(frozen=True, slots=True)
class StopBidding:
    """The node will stop soon: executions may continue for a while."""


@dataclass(frozen=True, slots=True)
class HandBack:
    """The node stops now: hand every execution back to its requester."""


StepEvent = Prepared | RunFinished | RunVanished | Published | StepFailed | EngineStopped
"""How a step of an execution ended."""

Event = (
    AnnouncementReceived
    | OutlineReceived
    | SpecReceived
    | SpecRefused
    | MessageReceived
    | Resumed
    | Recalled
    | Inspected
    | PreparationTold
    | StepEvent
    | RequesterCutOff
    | StopBidding
    | HandBack
    | NotStored
    | TimePassed
)

# --- actions ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LearnAddresses:
    """Remember where this requester can be dialled."""

    rests_on_records: ClassVar[bool] = False

    peer: PeerID
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inspect:
    """Find out about the job's inputs and ask the operator's probes; answer with Inspected, within
    `announcements.INSPECTION_TIMEOUT` seconds."""

    requester: PeerID
    job_id: JobID
    spec: JobSpec
    only_if_local: bool = False
    """Refuse the job unless this node has all of its inputs."""


@dataclass(frozen=True, slots=True)
class StopInspection:
    """Stop an inspection; no answer."""

    requester: PeerID
    job_id: JobID


@dataclass(frozen=True, slots=True)
class Prepare:
    """Fetch inputs and image; answer with Prepared, StepFailed or EngineStopped."""

    rests_on_records: ClassVar[bool] = False
    """After a crash, what it left is removed, and it is done again."""

    execution: ComputeExecution


@dataclass(frozen=True, slots=True)
class Run:
    """Run, and add the results folder to the block store; answer with RunFinished or StepFailed."""

    execution: ComputeExecution
    outlives_node: bool = field(default=True, compare=False)
    """A run that does not is started again after a crash."""

    @property
    def rests_on_records(self) -> bool:
        return self.outlives_node


@dataclass(frozen=True, slots=True)
class Reattach:
    """Continue a run that an earlier process of the node began; answer with RunFinished, RunVanished or
    StepFailed."""

    execution: ComputeExecution


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish the result; answer with Published or StepFailed."""

    execution: ComputeExecution


@dataclass(frozen=True, slots=True)
class Stop:
    """End the step of this execution that is under way, if any; no answer."""

    execution_id: ExecutionID


@dataclass(frozen=True, slots=True)
class CleanUp:
    """The execution has ended: remove its folders, release its inputs, unpin its result. A publisher
    that serves the result from this node has its own pin on it."""

    execution: ComputeExecution


@dataclass(frozen=True, slots=True)
class ReportGone:
    """Tell the operator that executions were stopped, because their requester was not heard of for so many
    seconds."""

    rests_on_records: ClassVar[bool] = False

    requester: PeerID
    silence: float
    executions: tuple[ExecutionID, ...]


@dataclass(frozen=True, slots=True)
class ReportUndelivered:
    """This requester announced a job and did not deliver its spec."""

    rests_on_records: ClassVar[bool] = False

    requester: PeerID
    job_id: JobID
    reason: str


Action = (
    Store
    | Send
    | LearnAddresses
    | Inspect
    | StopInspection
    | Prepare
    | Run
    | Reattach
    | Publish
    | Stop
    | CleanUp
    | ReportGone
    | ReportUndelivered
)
