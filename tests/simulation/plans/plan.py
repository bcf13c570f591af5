"""What happens in one simulated world: explicit data, so that a failing one can be read and made smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Step = Literal["inspect", "prepare", "run", "publish", "verify"]
StepOutcome = Literal["retryable", "permanent", "hang", "wrong"]
Point = Literal["before commit", "after commit", "amid effects", "before settling", "after settling"]

DATA = "data"
"""The type of every input source."""
OUTLIVING = "container"
"""The engine whose runs outlive their node's process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One node. `skew` is its clock's advance in seconds, `speed` divides the time that its steps take."""

    name: str
    requester: bool = False
    compute: bool = True
    cpu: float = 4.0
    skew: float = 0.0
    speed: float = 1.0
    joins: float = 0.0
    disk: int = 2**42
    holds_data: bool = False
    """Whether it has the inputs of all jobs; it says so in its bids."""
    lie: str = ""
    """What it adds to every result CID; nodes with the same lie agree with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """One job and its user. Times are seconds; `at` and `cancel_at` count from the world's beginning."""

    name: str
    requester: str
    at: float
    count: int = 1
    verifier: str = "noop"
    confidence: int = 0
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
    """Whether a run outlives its node's process, as a container does and a wasm child does not."""
    cancel_at: float | None = None
    inspection: float | None = None
    """Seconds for which a node inspects its inputs before a bid; None: it has none."""
    input_disk: int = 0
    """Bytes that its inputs take of a node's disk."""


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
    """Nothing goes from `group` to the others, and unless `one_way` nothing comes from them."""

    start: float
    end: float
    group: tuple[str, ...]
    one_way: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """kill -9, or with `power` a power cut, which takes runs and the commits that were not synced."""

    at: float
    node: str
    down: float
    power: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashPoint:
    """The same at a chosen step of the node's commit of that number."""

    node: str
    commit: int
    point: Point
    down: float
    power: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """A node goes and never comes back."""

    at: float
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """No more bids; `grace` seconds later all is handed back, and the node stops for `down` seconds."""

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
    """For which one commit stops everything on the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullDisk:
    """A commit fails, and with it the node; it is started again and again."""

    start: float
    end: float
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFault:
    """The node's step of this kind and number does not do what it should."""

    node: str
    step: Step
    number: int
    outcome: StepOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """A stranger who knows everything says something of somebody else's execution."""

    at: float
    kind: str
    pick: int


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
    | Forgery
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A world. After `heal_at` no fault strikes any more, and who is down comes back."""

    seed: int
    nodes: tuple[NodePlan, ...]
    jobs: tuple[JobPlan, ...]
    faults: tuple[Fault, ...] = ()
    heal_at: float = 60.0
    mild: bool = False
    """Nothing in it excuses a job that does not complete."""
    calm: bool = False
    """Nothing goes wrong at all, and there is room for every job: the world's figures are exact."""
    returning: bool = False
    """Every run outlives its node, and a node that is killed or cut off is back within a minute: no
    container is run a second time."""
    whole_day: bool = False
    """Go on until whatever is kept for a day has been given up."""
    encoded: bool = False
    """Every message really becomes bytes on its way."""

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, healed at {self.heal_at:g} s"]
        lines += [f"  {item}" for item in (*self.nodes, *self.jobs, *self.faults)]
        return "\n".join(lines)
