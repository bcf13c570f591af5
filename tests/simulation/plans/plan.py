"""What happens in one simulated world, as explicit data: a failing plan can be read, and made smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Step = Literal["inspect", "prepare", "run", "publish", "verify"]
StepOutcome = Literal["retryable", "permanent", "hang", "wrong"]
Point = Literal[
    "before commit", "after commit", "amid effects", "before acknowledging", "after acknowledging"
]

DATA = "data"
"""The type of every input source."""
OUTLIVING = "container"
"""The engine whose runs outlive their node's process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One node. `skew` is how far its clock is ahead, in seconds. `speed` divides the time of its steps."""

    name: str
    requester: bool = False
    compute: bool = True
    cpu: float = 4.0
    skew: float = 0.0
    speed: float = 1.0
    joins: float = 0.0
    disk: int = 2**42
    holds_data: bool = False
    """Whether it has the inputs of all jobs. Its bids say so."""
    lie: str = ""
    """What it adds to every result; nodes with the same lie agree with each other."""
    false_root: bool = False
    """Whether it proposes the entries of its result together with the CID of another folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimantPlan:
    """A node that bids on every job, and what it does `after` so many seconds when a bid was accepted."""

    name: str
    then: Literal["is silent", "fails", "hands back"]
    after: float = 0.0
    outlives: bool = False
    """Whether it claims that its runs outlive its process: then it is waited for longer."""
    bids: int = 1
    """On a job that is divided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """One job and its user. Times are seconds; `at` and `cancel_at` from the world's beginning."""

    name: str
    requester: str
    at: float
    count: int = 1
    verifier: str = "noop"
    confidence: int = 0
    compared: tuple[str, ...] = ()
    """The entries of the results that the verifier compares; all if empty."""
    min_bids: int = 0
    priority: int = 0
    cpu: float = 0.5
    prepare: float = 0.5
    run: float = 2.0
    publish: float = 0.5
    execution_timeout: float = 60.0
    queue_timeout: float = 200.0
    total_timeout: float = 600.0
    survives: bool = True
    """Whether a run outlives its node's process. A container does, a WebAssembly child does not."""
    cancel_at: float | None = None
    inspection: float | None = None
    """Seconds for which a node inspects its inputs before a bid; None: it has none."""
    input_disk: int = 0
    """Bytes of disk that its inputs take."""
    ops: bool = False
    """Whether it runs once on each node; then it has no count and compares nothing."""
    replicas: int = 0
    """How many nodes run each of its partitions; 0: it is not divided."""
    padding: int = 0
    """Characters that its spec has in addition."""


# --- faults; `start` and `end` are seconds from the world's beginning ---------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    start: float
    end: float
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    start: float
    end: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    start: float
    end: float
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reordering:
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Nothing gets from `group` to the others or, unless `one_way`, back."""

    start: float
    end: float
    group: tuple[str, ...]
    one_way: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """kill -9, or with `power` a power cut, which ends all runs and may undo commits that were not synced."""

    at: float
    node: str
    down: float
    power: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashPoint:
    """The same at one point of the node's commit of this number."""

    node: str
    commit: int
    point: Point
    down: float
    power: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """A node stops and never comes back."""

    at: float
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A node stops bidding, hands back its executions after `grace` seconds, and stops for `down` seconds."""

    at: float
    node: str
    grace: float
    down: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowDisk:
    start: float
    end: float
    node: str
    seconds: float
    """How long each commit holds up the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullDisk:
    """Every commit fails and ends the process. The node is started again each time."""

    start: float
    end: float
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFault:
    """The node's step of this kind and number fails, hangs or gives a wrong result."""

    node: str
    step: Step
    number: int
    outcome: StepOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerFault:
    """The handler of one event or deadline of the node's machines raises when it has done its work. `number`
    counts those that concern jobs."""

    node: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFault:
    """The store of the node refuses a record. `number` counts the records that the node commits."""

    node: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """A stranger who knows every id sends a message about an execution of others."""

    at: float
    kind: str
    pick: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """A node deletes every job and execution that has ended and that nobody must still be told of."""

    at: float
    node: str


Fault = (
    Loss
    | Delay
    | Repetition
    | Reordering
    | Partition
    | Crash
    | CrashPoint
    | Leave
    | Drain
    | SlowDisk
    | FullDisk
    | StepFault
    | HandlerFault
    | RecordFault
    | Forgery
    | Prune
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A world. At `heal_at` all faults end, and nodes that are down start again."""

    seed: int
    nodes: tuple[NodePlan, ...]
    jobs: tuple[JobPlan, ...]
    faults: tuple[Fault, ...] = ()
    claimants: tuple[ClaimantPlan, ...] = ()
    heal_at: float = 60.0
    mild: bool = False
    """Every job must complete."""
    calm: bool = False
    """Nothing goes wrong, and there is room for every job: the number of messages and the times are exact."""
    returning: bool = False
    """Every run outlives its node's process, and nodes are back within a minute: no container runs twice."""
    whole_day: bool = False
    """Go on until everything that is kept for a day has expired."""
    abandoned: bool = False
    """Go on until what runs for a requester that left for good has been stopped."""
    encoded: bool = False
    """Every message is encoded and decoded on its way."""

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, healed at {self.heal_at:g} s"]
        lines += [f"  {item}" for item in (*self.nodes, *self.claimants, *self.jobs, *self.faults)]
        return "\n".join(lines)
