"""Everything that peers say to each other. `docs/bprotocol.md` is the specification.

Kinds are append-only: a kind never changes its meaning and a field never changes its type; new
fields have defaults. A message names no author: that is the peer whom the carrier authenticated.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from bacalhau_p2p.model.base import ExecutionID, JobID, UnixSeconds
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import NodeInfo
from bacalhau_p2p.model.quantities import MAX_BYTES
from bacalhau_p2p.model.state import ComputeState, ExecutionState

MAX_REASON = 4096
"""Characters of a reason, an error's text or a state's message."""

Reason = Annotated[str, Field(max_length=MAX_REASON)]


class Carrier(Enum):
    """How a kind of message travels."""

    JOBS = "jobs"
    """Broadcast on the network's topic of jobs."""
    NODES = "nodes"
    """Broadcast on the network's topic of nodes."""
    MAIL = "mail"
    """Broadcast to reach one peer that has no direct connection. No kind has this carrier; it replaces the
    next two when a direct stream cannot be opened."""
    DIRECT = "direct"
    """To one peer, repeated until acknowledged."""
    BEST_EFFORT = "best_effort"
    """To one peer, sent once. The next such message makes up for a lost one."""


BROADCAST_CARRIERS = (Carrier.JOBS, Carrier.NODES)
"""The carriers of messages to everybody."""


class Message(BaseModel):
    """Base of all messages: frozen, strictly typed; fields that we do not know are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    kind: ClassVar[str]
    carrier: ClassVar[Carrier]


KINDS: dict[str, type[Message]] = {}
"""Every kind that this version understands, by its name on the wire."""

M = TypeVar("M", bound=type[Message])


def message(kind: str, carrier: Carrier) -> Callable[[M], M]:
    """Give a message class its name on the wire and its carrier."""

    def register(cls: M) -> M:
        if kind in KINDS:
            raise TypeError(f"two messages of kind {kind!r}")
        cls.kind = kind
        cls.carrier = carrier
        KINDS[kind] = cls
        return cls

    return register


def topic(network: str, carrier: Carrier) -> str:
    """The pubsub topic of a broadcast carrier: `/bacalhau/1/main/jobs`."""
    return f"/bacalhau/1/{network}/{carrier.value}"


# --- broadcasts ---------------------------------------------------------------------------


@message("job_announced", Carrier.JOBS)
class JobAnnounced(Message):
    """Requester -> everybody: who wants to run this?

    A node that may bid answers directly, at `addresses` if it has no connection yet. With
    `answers_wanted` a node that will not bid says so, once a round, so that nobody waits for it.
    `eligible` is about how many nodes the requester thinks could bid; with it a node finds the
    probability with which it should.
    """

    job_id: JobID
    spec: JobSpec
    addresses: tuple[str, ...] = Field(default=(), strict=False, max_length=64)
    bids_wanted: int = Field(ge=1)
    round: int = Field(ge=1)
    eligible: int = Field(default=0, ge=0)
    answers_wanted: bool = False
    deadline: UnixSeconds
    """The job is over by then, by the requester's clock."""


@message("job_closed", Carrier.JOBS)
class JobClosed(Message):
    """Requester -> everybody: no more bids on this job until it is announced again."""

    job_id: JobID
    reason: Reason = ""


@message("node_info", Carrier.NODES)
class NodeInfoPublished(Message):
    """A node -> everybody: who I am and what I offer. Only the author's own info is believed."""

    info: NodeInfo


# --- compute -> requester -------------------------------------------------------------------


@message("bid", Carrier.DIRECT)
class Bid(Message):
    """Accept me and I will run this job. The bidder mints the execution's id: one attempt, one id."""

    job_id: JobID
    execution_id: ExecutionID
    round: int = Field(default=1, ge=1)
    reserved_for: float = Field(gt=0)
    """Seconds for which room is kept; without an answer it is given to others after that."""
    load: float = Field(default=0.0, ge=0.0)
    """The part of this node that is reserved, 0 to 1: requesters prefer idle nodes."""
    outlives_node: bool = False
    """The run will go on if this node's process dies, and be taken up again when it is back: wait for it."""
    input_bytes: int = Field(default=0, ge=0, le=MAX_BYTES)
    """Bytes of the job's inputs, as far as this node could find them out."""
    local_input_bytes: int = Field(default=0, ge=0, le=MAX_BYTES)
    """Those that it has already: requesters prefer nodes that have more, and the rest would be fetched."""


@message("bid_declined", Carrier.BEST_EFFORT)
class BidDeclined(Message):
    """I will not run this job in this round. `busy` says that I might later."""

    job_id: JobID
    round: int = Field(ge=1)
    reason: Reason
    busy: bool = False


@message("result_proposed", Carrier.DIRECT)
class ResultProposed(Message):
    """The run ended. `sealed` is a Proposal that only the requester can open."""

    job_id: JobID
    execution_id: ExecutionID
    sealed: bytes = Field(max_length=256 * 1024)


@message("result_published", Carrier.DIRECT)
class ResultPublished(Message):
    """The accepted result is published, and where."""

    job_id: JobID
    execution_id: ExecutionID
    result: PublishedResult


@message("execution_failed", Carrier.DIRECT)
class ExecutionFailed(Message):
    """This execution gave no result. `permanent`: another node would fail alike. `drained`: nothing is
    wrong with it, the node stops."""

    job_id: JobID
    execution_id: ExecutionID
    reason: Reason
    permanent: bool = False
    drained: bool = False


class ExecutionProgress(BaseModel):
    """One line of a heartbeat."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    execution_id: ExecutionID
    state: ComputeState
    message: Reason = ""


@message("heartbeat", Carrier.BEST_EFFORT)
class Heartbeat(Message):
    """These executions of yours are alive here. One message for all of them."""

    executions: tuple[ExecutionProgress, ...] = Field(strict=False, max_length=10_000)


# --- requester -> compute -------------------------------------------------------------------


@message("bid_accepted", Carrier.DIRECT)
class BidAccepted(Message):
    """Run it."""

    job_id: JobID
    execution_id: ExecutionID


@message("bid_rejected", Carrier.DIRECT)
class BidRejected(Message):
    """Others run it; give the room to somebody else."""

    job_id: JobID
    execution_id: ExecutionID
    reason: Reason = ""


@message("result_accepted", Carrier.DIRECT)
class ResultAccepted(Message):
    """Your result was verified: publish it."""

    job_id: JobID
    execution_id: ExecutionID


@message("result_rejected", Carrier.DIRECT)
class ResultRejected(Message):
    """Your result was not accepted: forget it."""

    job_id: JobID
    execution_id: ExecutionID
    reason: Reason = ""


@message("cancel_execution", Carrier.DIRECT)
class CancelExecution(Message):
    """Stop this execution, whatever it does."""

    job_id: JobID
    execution_id: ExecutionID
    reason: Reason = ""


class ExecutionView(BaseModel):
    """One line of a reconciliation: what an execution is to its requester."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job_id: JobID
    execution_id: ExecutionID
    state: ExecutionState


@message("reconcile", Carrier.DIRECT)
class Reconcile(Message):
    """I think this of these executions of yours: do what follows from it, or say again what I missed.

    Sent after a restart, when a connection is back, and when nothing was heard for a minute.
    """

    executions: tuple[ExecutionView, ...] = Field(strict=False, max_length=10_000)


# --- both ways ------------------------------------------------------------------------------


@message("ack", Carrier.BEST_EFFORT)
class Ack(Message):
    """What these messages changed is kept; do not repeat them."""

    ids: tuple[bytes, ...] = Field(strict=False, max_length=10_000)


# --- who listens to what --------------------------------------------------------------------

TO_REQUESTER: tuple[type[Message], ...] = (
    Bid,
    BidDeclined,
    ResultProposed,
    ResultPublished,
    ExecutionFailed,
    Heartbeat,
)

TO_COMPUTE: tuple[type[Message], ...] = (
    JobAnnounced,
    JobClosed,
    BidAccepted,
    BidRejected,
    ResultAccepted,
    ResultRejected,
    CancelExecution,
    Reconcile,
)
