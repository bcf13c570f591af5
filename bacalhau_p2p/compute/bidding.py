"""Whether to bid on a job: what this node can run, what it wants to run, and how eagerly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bacalhau_p2p.errors import Fault
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.constraints import matches
from bacalhau_p2p.model.job import JobSpec, SpecConfig
from bacalhau_p2p.model.quantities import format_bytes

Faults = Callable[[SpecConfig], list[Fault]]
"""An adapter's opinion of the parameters meant for it; quick and without I/O."""

BIDS_FOR_EACH_WANTED = 3
"""How many times the wanted bids a requester should expect in the first round of a large network."""
LONGEST_DELAY = 0.15
"""Seconds that a fully loaded node of a large network waits before it bids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the adapters of this node can do now, by type."""

    engines: Mapping[str, Faults] = field(default_factory=dict)
    sources: Mapping[str, Faults] = field(default_factory=dict)
    publishers: Mapping[str, Faults] = field(default_factory=dict)
    outliving: frozenset[str] = frozenset()
    """Engines whose runs go on without the node's process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSelectionPolicy:
    """Which jobs the owner of this node wants, of those it can run."""

    accept_networked: bool = False
    """Jobs that want to reach a network."""
    reject_stateless: bool = False
    """Jobs without inputs: they could run anywhere."""
    local_data_only: bool = False
    """Only jobs all of whose inputs are on this node already."""
    probed: bool = False
    """The owner's own programs are asked about each job."""
    requesters: frozenset[PeerID] = frozenset()
    """If not empty: only jobs of these requesters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a look at a job has found that takes time: at its inputs, and at what the owner's probes say.

    Bytes; an input whose size is not known counts as nothing.
    """

    refusal: str | None = None
    """Why this node will not run the job, of what was found."""
    input_bytes: int = 0
    local_input_bytes: int = 0
    """Of those, what is on this node already."""
    disk: int = 0
    """What the inputs will take of this node's disk, beyond what they take now."""


NOTHING_FOUND = Findings()


@dataclass(frozen=True, slots=True, kw_only=True)
class BidStrategy:
    """Pure: the same job gets the same answer until the offer changes."""

    offer: Callable[[], Offer]
    labels: Mapping[str, str] = field(default_factory=dict)
    policy: JobSelectionPolicy = JobSelectionPolicy()
    resource_shortage: Callable[[int], str | None] = lambda disk: None
    """What this node has too little of to take a job now whose inputs need so many bytes of disk, 0 if
    that is not known yet: `has almost no free disk`."""

    def ineligibility_reason(self, requester: PeerID, spec: JobSpec) -> str | None:
        """Why this node will not run the job whatever its load, or None."""
        return self._cannot(spec) or self._will_not(requester, spec)

    def takes_a_look(self, spec: JobSpec) -> bool:
        """Whether there is more to find out about such a job before a bid, which takes time."""
        return bool(spec.task.input_sources) or self.policy.probed

    def outlives_node(self, spec: JobSpec) -> bool:
        """Whether a run of this job here goes on without the node's process."""
        return spec.task.engine.type in self.offer().outliving

    def _cannot(self, spec: JobSpec) -> str | None:
        offer, task = self.offer(), spec.task
        wanted: list[tuple[str, Mapping[str, Faults], SpecConfig, str]] = [
            ("engine", offer.engines, task.engine, "Tasks[0].Engine"),
            ("publisher", offer.publishers, task.publisher, "Tasks[0].Publisher"),
        ]
        wanted += [
            ("storage provider", offer.sources, source.source, f"Tasks[0].InputSources[{index}].Source")
            for index, source in enumerate(task.input_sources)
        ]
        for what, known, config, path in wanted:
            faults_of = known.get(config.type)
            if faults_of is None:
                return f"has no {config.type} {what}"
            if faults := faults_of(config):
                return f"{path}.{faults[0]}"
        if not matches(spec.constraints, self.labels):
            return "does not match the job's constraints"
        return None

    def _will_not(self, requester: PeerID, spec: JobSpec) -> str | None:
        policy = self.policy
        if policy.requesters and requester not in policy.requesters:
            return "does not serve this requester"
        if spec.task.network.type.lower() != "none" and not policy.accept_networked:
            return "accepts no jobs that want a network"
        if policy.reject_stateless and not spec.task.input_sources:
            return "accepts no jobs without inputs"
        return None


def bid_probability(*, bids_wanted: int, eligible: int, round_number: int) -> float:
    """How likely one of `eligible` nodes should bid, so that few bids are wasted and enough come."""
    if eligible <= 0:
        return 1.0
    share = BIDS_FOR_EACH_WANTED * bids_wanted / eligible
    return min(1.0, share * 2.0 ** min(round_number - 1, 30))


def bid_delay(*, bids_wanted: int, eligible: int, load: float, rng: float) -> float:
    """Seconds to wait before bidding: none in a small network, longer for busy nodes in a large one."""
    if eligible <= BIDS_FOR_EACH_WANTED * bids_wanted:
        return 0.0
    return LONGEST_DELAY * (0.1 + 0.9 * load) * rng


def no_disk_for_inputs(*, inputs: int, job: int, free: int) -> str:
    """Why a node cannot take a job whose inputs need so many bytes of disk, and itself `job` more."""
    wanted = f"inputs need {format_bytes(inputs)}"
    if job:
        wanted += f" and the job {format_bytes(job)} more"
    return f"{wanted}, {format_bytes(free)} of disk are free"
