"""All messages between peers. `docs/bprotocol.md` is the specification.

Kinds are append-only: a kind never changes its meaning and a field never changes its type; new fields have
defaults. A message does not name its author, which is the peer that the transport authenticated.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bacalhau_p2p.model.base import UnixSeconds
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.fields import MAX_COUNT, CIDText
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import NodeInfo, NodeLoad
from bacalhau_p2p.model.outline import MAX_ENCODED_SPEC, JobOutline
from bacalhau_p2p.model.quantities import MAX_BYTES
from bacalhau_p2p.model.state import ComputeState, ExecutionState, UnknownState
from bacalhau_p2p.model.usage import Usage
from bacalhau_p2p.model.wire_types import (
    MAX_REASON as MAX_REASON,
)
from bacalhau_p2p.model.wire_types import (
    BoundedExecutionID,
    BoundedJobID,
    PeerAddresses,
    Reason,
    clamped,
    usable_items,
)

MAX_BIDS_WANTED = 10_000
MAX_BIDS_EACH = 64
"""Bids of one node on a job in one round."""
MAX_ROUND = 10_000_000
"""More than a job has in a year. It counts the announcements of the job."""
MAX_ELIGIBLE = 10_000_000
"""Nodes of a network."""
MAX_RESERVED_FOR = 60.0
"""Seconds for which a requester relies on a reservation, whatever the bid says."""
MAX_EXECUTIONS = 10_000
"""Executions in one heartbeat or reconcile."""
MAX_INPUTS_TOLD = 16
"""Inputs of one execution in a heartbeat."""
MAX_ACK_IDS = 10_000
"""Ids in one ack."""
MAX_REFUSALS = 100
"""Refused messages in one ack."""
MAX_SEALED = 256 * 1024
"""Bytes of a sealed proposal."""
MESSAGE_ID_BYTES = 16


class Carrier(Enum):
    """How a kind of message travels."""

    JOBS = "jobs"
    """Broadcast on the network's topic of jobs, or sent once to each of a few peers."""
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
SENT_ONCE = (Carrier.BEST_EFFORT, Carrier.JOBS)
"""The carriers of messages that may go to one peer alone, without an acknowledgement."""


class Message(BaseModel):
    """Base of all messages: frozen and strictly typed. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    kind: ClassVar[str]
    carrier: ClassVar[Carrier]


class ExecutionMessage(Message):
    """Base of messages about one execution."""

    job_id: BoundedJobID
    execution_id: BoundedExecutionID


KINDS: dict[str, type[Message]] = {}
"""All kinds that this version understands, by their names on the wire."""

M = TypeVar("M", bound=type[Message])


def message(kind: str, carrier: Carrier) -> Callable[[M], M]:
    """Give a message class its name on the wire and its carrier."""

    def register(cls: M) -> M:
        if kind in KINDS:
            raise TypeError(f"message kind {kind!r} is defined twice")
        cls.kind = kind
        cls.carrier = carrier
        KINDS[kind] = cls
        return cls

    return register


def topic(network: str, carrier: Carrier) -> str:
    """The pubsub topic of a broadcast carrier: `/bacalhau/1/main/jobs`."""
    return f"/bacalhau/1/{network}/{carrier.value}"


# --- broadcasts ---------------------------------------------------------------------------


class Announcement(Message):
    """Requester -> everybody: asks for bids on a job.

    Nodes whose lot (`bprotocol.draw`) is below `chance` may bid; the others do nothing. A node that bids
    answers directly, at `addresses` if it has no connection yet. With `answers_wanted` a node that may bid
    and does not declines, once per round, so that the requester does not wait for it. `eligible` is roughly
    the number of nodes that could bid.
    """

    job_id: BoundedJobID
    addresses: PeerAddresses = Field(default=(), strict=False)
    bids_wanted: int = Field(ge=1, le=MAX_BIDS_WANTED)
    round: int = Field(ge=1, le=MAX_ROUND)
    eligible: int = Field(default=0, ge=0, le=MAX_ELIGIBLE)
    chance: float = Field(default=1.0, gt=0.0, le=1.0)
    answers_wanted: bool = False
    bids_each: int = Field(default=0, ge=0, le=MAX_BIDS_EACH)
    """How many bids a node may place on a job that is divided, beside the executions that it has. 0: a node
    has one bid or execution of the job at a time."""
    deadline: UnixSeconds
    """When the job ends at the latest, by the requester's clock."""
    only_if_local: bool = False
    """Only a node that has all inputs of the job may bid; any other does nothing."""


@message("job_announced", Carrier.JOBS)
class JobAnnounced(Announcement):
    """A job whose spec is small enough for everybody to read it."""

    spec: JobSpec


@message("job_outlined", Carrier.JOBS)
class JobOutlined(Announcement):
    """A job with a large spec. A node that may bid and could run it fetches the spec with `SpecWanted`."""

    outline: JobOutline


@message("job_closed", Carrier.JOBS)
class JobClosed(Message):
    """Requester -> everybody: no more bids on this job until it is announced again."""

    job_id: BoundedJobID
    reason: Reason = ""


@message("node_info", Carrier.NODES)
class NodeInfoPublished(Message):
    """Node -> everybody: what this node is and what it offers. Infos about other nodes are ignored."""

    info: NodeInfo


@message("greeting", Carrier.BEST_EFFORT)
class Greeting(Message):
    """Node -> node that connects and does not know it: what this node is. Answered with one, once."""

    info: NodeInfo
    network: str = Field(max_length=64)
    """A node of another network is not known."""


# --- compute -> requester -------------------------------------------------------------------


@message("bid", Carrier.DIRECT)
class Bid(ExecutionMessage):
    """Offers to run a job. The bidder creates the execution's id, a new one for each attempt."""

    round: int = Field(default=1, ge=1, le=MAX_ROUND)
    reserved_for: Annotated[float, clamped(0.0, MAX_RESERVED_FOR)] = Field(gt=0)
    """Seconds for which resources are reserved; without an answer they are then released."""
    load: Annotated[float, clamped(0.0, 1.0)] = Field(default=0.0, ge=0.0)
    """The share of this node's resources that is reserved, 0 to 1: requesters prefer idle nodes."""
    outlives_node: bool = False
    """The run goes on if this node's process dies, and the node resumes it when it is back: wait for it."""
    input_bytes: int = Field(default=0, ge=0, le=MAX_BYTES)
    """Bytes of the job's inputs, as far as this node knows."""
    local_input_bytes: int = Field(default=0, ge=0, le=MAX_BYTES)
    """Bytes of the inputs that are local. Requesters prefer nodes with more, which have less to fetch."""
    late: bool = False
    """The node had no room when the job was announced, and now has some."""
    more: int = Field(default=0, ge=0, le=MAX_BIDS_EACH)
    """How many further bids of this node on the job follow at once."""


@message("bid_declined", Carrier.BEST_EFFORT)
class BidDeclined(Message):
    """Declines to run a job in this round. With `busy` the node may bid later."""

    job_id: BoundedJobID
    round: int = Field(ge=1, le=MAX_ROUND)
    reason: Reason
    busy: bool = False


@message("spec_wanted", Carrier.BEST_EFFORT)
class SpecWanted(Message):
    """Asks for the spec of a job that was outlined. Asked again if it does not come."""

    job_id: BoundedJobID
    spec_cid: CIDText


@message("result_proposed", Carrier.DIRECT)
class ResultProposed(ExecutionMessage):
    """The run ended. `sealed` is a Proposal that only the requester can open."""

    sealed: bytes = Field(max_length=MAX_SEALED)


@message("result_published", Carrier.DIRECT)
class ResultPublished(ExecutionMessage):
    """The accepted result is published at this location."""

    result: PublishedResult


@message("execution_failed", Carrier.DIRECT)
class ExecutionFailed(ExecutionMessage):
    """The execution failed. `permanent`: it would fail on other nodes too. `drained`: nothing is wrong with
    the execution; its node stops, has no room, or its engine stopped. `unknown`: the node never began it, or
    has forgotten it."""

    reason: Reason
    permanent: bool = False
    drained: bool = False
    unknown: bool = False
    usage: Usage | None = None
    """What it used until then."""
    kept_cid: CIDText | None = None
    """What it left in its result paths, if its job asks for that: a folder like that of a result."""


def _known_state(states: type[ComputeState | ExecutionState]) -> BeforeValidator:
    known: dict[str, Any] = {state.value: state for state in states}

    def check(value: Any) -> Any:
        return known.get(value, UnknownState.UNKNOWN) if isinstance(value, str) else value

    return BeforeValidator(check)


class InputProgress(BaseModel):
    """How much of one input of a job is on the node that prepares it."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    done: int = Field(ge=0, le=MAX_BYTES)
    total: int | None = Field(default=None, ge=0, le=MAX_BYTES)
    """None is unknown."""


class ExecutionProgress(BaseModel):
    """The state of one execution in a heartbeat."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    execution_id: BoundedExecutionID
    state: Annotated[ComputeState | UnknownState, _known_state(ComputeState)]
    message: Reason = ""
    inputs: tuple[InputProgress, ...] = Field(default=(), strict=False, max_length=MAX_INPUTS_TOLD)
    """While inputs are fetched, the first ones of the job, in its order."""


@message("heartbeat", Carrier.BEST_EFFORT)
class Heartbeat(Message):
    """Reports the states of all executions of this requester on this node, or how one of them gets on."""

    executions: Annotated[tuple[ExecutionProgress, ...], usable_items(ExecutionProgress, MAX_EXECUTIONS)] = (
        Field(strict=False, max_length=MAX_EXECUTIONS)
    )
    load: NodeLoad | None = None
    """How busy the whole node is."""


# --- requester -> compute -------------------------------------------------------------------


@message("spec_delivered", Carrier.BEST_EFFORT)
class SpecDelivered(Message):
    """The spec of a job that was outlined: CBOR with the CID that its outline names. Empty if no more bids
    are wanted."""

    job_id: BoundedJobID
    spec: bytes = Field(max_length=MAX_ENCODED_SPEC)


@message("bid_accepted", Carrier.DIRECT)
class BidAccepted(ExecutionMessage):
    """Accepts a bid: the node runs this partition of the job."""

    partition: int = Field(default=0, ge=0, lt=MAX_COUNT)


@message("bid_rejected", Carrier.DIRECT)
class BidRejected(ExecutionMessage):
    """Rejects a bid: the node releases its resources."""

    reason: Reason = ""


@message("result_accepted", Carrier.DIRECT)
class ResultAccepted(ExecutionMessage):
    """The result was verified: the node publishes it."""


@message("result_rejected", Carrier.DIRECT)
class ResultRejected(ExecutionMessage):
    """The result was rejected: the node drops it."""

    reason: Reason = ""


@message("cancel_execution", Carrier.DIRECT)
class CancelExecution(ExecutionMessage):
    """Stops an execution in any state."""

    reason: Reason = ""


class ExecutionView(BaseModel):
    """The state of one execution as its requester sees it."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    job_id: BoundedJobID
    execution_id: BoundedExecutionID
    state: Annotated[ExecutionState | UnknownState, _known_state(ExecutionState)]
    partition: int = Field(default=0, ge=0, lt=MAX_COUNT)
    """As in `BidAccepted`, which may not have arrived."""


@message("reconcile", Carrier.DIRECT)
class Reconcile(Message):
    """Tells a node how the requester sees its executions. The node acts on that, or repeats what the
    requester missed.

    Sent after a restart, when a connection is restored, and when nothing has changed for a minute.
    """

    executions: Annotated[tuple[ExecutionView, ...], usable_items(ExecutionView, MAX_EXECUTIONS)] = Field(
        strict=False, max_length=MAX_EXECUTIONS
    )


# --- both ways ------------------------------------------------------------------------------


WireMessageID = Annotated[bytes, Field(strict=True, min_length=MESSAGE_ID_BYTES, max_length=MESSAGE_ID_BYTES)]


class Refusal(BaseModel):
    """A message that has no effect and never will have: its receiver cannot read it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: WireMessageID
    reason: Reason


@message("ack", Carrier.BEST_EFFORT)
class Ack(Message):
    """The effects of these messages are durable, or will never come: their sender need not repeat them.

    `refused` says which of them were refused for good, and why. They are in `ids` as well.
    """

    ids: Annotated[tuple[WireMessageID, ...], usable_items(WireMessageID, MAX_ACK_IDS)] = Field(
        strict=False, max_length=MAX_ACK_IDS
    )
    refused: Annotated[tuple[Refusal, ...], usable_items(Refusal, MAX_REFUSALS)] = Field(
        default=(), strict=False, max_length=MAX_REFUSALS
    )


# --- who handles what -----------------------------------------------------------------------

TO_REQUESTER: tuple[type[Message], ...] = (
    Bid,
    BidDeclined,
    SpecWanted,
    ResultProposed,
    ResultPublished,
    ExecutionFailed,
    Heartbeat,
)

TO_COMPUTE: tuple[type[Message], ...] = (
    JobAnnounced,
    JobOutlined,
    JobClosed,
    SpecDelivered,
    BidAccepted,
    BidRejected,
    ResultAccepted,
    ResultRejected,
    CancelExecution,
    Reconcile,
)
