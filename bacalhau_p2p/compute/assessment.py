"""Assesses an announced job: whether this node may bid on it, can run it, and its operator wants it to.

The draw comes first: a node that may not bid does nothing. The rest is quick, and happens before the
announcement reaches the machine, which gets the result as a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bacalhau_p2p.bprotocol.draw import is_drawn
from bacalhau_p2p.bprotocol.messages import JobAnnounced, JobOutlined
from bacalhau_p2p.components.adapter_calls import adapter_errors, expected_faults
from bacalhau_p2p.compute.bidding import NOT_DRAWN, Assessment
from bacalhau_p2p.errors import ExecutionError, Fault
from bacalhau_p2p.model.access_list import EVERYBODY, AccessList
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.constraints import matches
from bacalhau_p2p.model.domains import is_covered
from bacalhau_p2p.model.job import JobSpec, SpecConfig
from bacalhau_p2p.model.quantities import format_bytes
from bacalhau_p2p.model.resources import Resources

MISMATCH = "does not match the job's constraints"

Faults = Callable[[SpecConfig], list[Fault]]
"""What an adapter finds wrong with parameters: pure, fast, bounded work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the adapters of this node can do now, by type."""

    engines: Mapping[str, Faults] = field(default_factory=dict)
    sources: Mapping[str, Faults] = field(default_factory=dict)
    publishers: Mapping[str, Faults] = field(default_factory=dict)
    no_networks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By engine, the networks that it cannot give to jobs here, and why."""
    outliving: frozenset[str] = frozenset()
    """Engines whose runs continue without the process of the node."""

    def gives(self, network: str) -> bool:
        """Whether an engine that works can give jobs this network."""
        return any(network not in self.no_networks.get(engine, {}) for engine in self.engines)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSelectionPolicy:
    """Which of the jobs that this node can run its operator accepts."""

    requesters: AccessList = EVERYBODY
    """Whose jobs are accepted."""
    networks: frozenset[str] = frozenset()
    """Networks that jobs may ask for, beside `None`."""
    network_domains: tuple[str, ...] = ()
    """Domains that jobs with the network `HTTP` may name. None: all."""
    reject_stateless: bool = False
    """Reject jobs without inputs, which could run anywhere."""
    max_execution_time: float = 0.0
    """The longest execution timeout of jobs that this node runs, in seconds. 0: any."""
    job_limit: Resources = field(default_factory=Resources)
    """The resources of one job at most; 0 of one: any amount."""
    probed: bool = False
    """The operator's own programs decide about each job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessor:
    """Assesses announced jobs for one node."""

    node_id: PeerID
    offer: Callable[[], Offer]
    labels: Mapping[str, str] = field(default_factory=dict)
    policy: JobSelectionPolicy = JobSelectionPolicy()
    resource_shortage: Callable[[], str | None] = lambda: None
    """What this node has too little of to run any job now: `has almost no free disk`."""
    nodes_known: Callable[[], int] = lambda: 0
    """How many nodes this node knows."""

    def assess(self, requester: PeerID, announcement: JobAnnounced) -> Assessment:
        """What this node knows about the job at once."""
        if not is_drawn(announcement, self.node_id, nodes=self.nodes_known()):
            return NOT_DRAWN
        if not self.policy.requesters.admits(requester):
            return Assessment(ineligibility="accepts no jobs from this requester")
        try:
            with adapter_errors("check of the job"):
                return self._assess(announcement.spec)
        except ExecutionError as error:
            return Assessment(ineligibility=str(error))

    def assess_outline(self, requester: PeerID, announcement: JobOutlined) -> Assessment:
        """The same of a large job, as far as its outline shows."""
        if not is_drawn(announcement, self.node_id, nodes=self.nodes_known()):
            return NOT_DRAWN
        if not self.policy.requesters.admits(requester):
            return Assessment(ineligibility="accepts no jobs from this requester")
        outline, offer = announcement.outline, self.offer()
        reason = _missing("engine", offer.engines, outline.engine)
        reason = reason or _missing("publisher", offer.publishers, outline.publisher)
        for source in outline.sources:
            reason = reason or _missing("storage provider", offer.sources, source)
        if reason is None and not matches(outline.constraints, self.labels):
            reason = MISMATCH
        reason = reason or _no_network(offer, outline.engine, outline.network)
        reason = reason or self._will_not(
            outline.network, outline.execution_timeout, outline.inputs, outline.resources
        )
        return Assessment(ineligibility=reason, shortage=None if reason else self.resource_shortage())

    def _assess(self, spec: JobSpec) -> Assessment:
        offer = self.offer()
        task = spec.task
        ineligibility = (
            self._cannot(offer, spec)
            or self._will_not(
                task.network.type, spec.execution_timeout, len(task.input_sources), spec.resources
            )
            or self._not_allowed(task.network.domains)
        )
        if ineligibility is not None:
            return Assessment(ineligibility=ineligibility)
        return Assessment(
            shortage=self.resource_shortage(),
            needs_inspection=bool(spec.task.input_sources) or self.policy.probed,
            outlives_node=spec.task.engine.type in offer.outliving,
        )

    def _cannot(self, offer: Offer, spec: JobSpec) -> str | None:
        """Why this node cannot run the job, however idle it is."""
        task = spec.task
        reason = _unfit("engine", offer.engines, task.engine, "Tasks[0].Engine")
        reason = reason or _unfit("publisher", offer.publishers, task.publisher, "Tasks[0].Publisher")
        for index, source in enumerate(task.input_sources):
            path = f"Tasks[0].InputSources[{index}].Source"
            reason = reason or _unfit("storage provider", offer.sources, source.source, path)
        if reason is None and not matches(spec.constraints, self.labels):
            reason = MISMATCH
        return reason or _no_network(offer, task.engine.type, task.network.type)

    def _will_not(
        self, network: str, execution_timeout: float, inputs: int, resources: Resources
    ) -> str | None:
        """Why the operator of this node does not accept such a job."""
        if network != "None" and network not in self.policy.networks:
            if not self.policy.networks:
                return "accepts no jobs that need network access"
            return f"accepts no jobs with the network {network}, only {', '.join(self.policy.networks)}"
        longest = self.policy.max_execution_time
        if longest and execution_timeout > longest:
            return f"accepts no jobs with an execution timeout of more than {longest:g} s"
        if self.policy.reject_stateless and not inputs:
            return "accepts no jobs without inputs"
        return _above(self.policy.job_limit, resources)

    def _not_allowed(self, domains: tuple[str, ...]) -> str | None:
        """Why the operator does not let a job name these domains."""
        allowed = self.policy.network_domains
        beyond = [each for each in domains if allowed and not is_covered(each, allowed)]
        return f"lets no job reach {beyond[0]}" if beyond else None


def _no_network(offer: Offer, engine: str, network: str) -> str | None:
    """Why no job of this engine can have the network here."""
    why = offer.no_networks.get(engine, {}).get(network)
    return None if why is None else f"cannot give a {engine} job the network {network}: {why}"


def _unfit(kind: str, known: Mapping[str, Faults], config: SpecConfig, path: str) -> str | None:
    """Why no adapter of this kind takes these parameters."""
    faults_of = known.get(config.type)
    if faults_of is None:
        return _missing(kind, known, config.type)
    faults = expected_faults(faults_of(config), f"{config.type} {kind}")
    return f"{path}.{faults[0]}" if faults else None


def _above(limit: Resources, asked: Resources) -> str | None:
    """What a job asks for more of than its operator allows one job."""
    if limit.cpu and asked.cpu > limit.cpu:
        return f"accepts no jobs with more than {limit.cpu:g} CPU"
    if limit.memory and asked.memory > limit.memory:
        return f"accepts no jobs with more than {format_bytes(limit.memory)} of memory"
    if limit.disk and asked.disk > limit.disk:
        return f"accepts no jobs with more than {format_bytes(limit.disk)} of disk"
    if limit.gpu and asked.gpu > limit.gpu:
        return f"accepts no jobs with more than {limit.gpu} GPUs"
    return None


def _missing(kind: str, known: Mapping[str, Faults], type_name: str) -> str | None:
    """Why a node without an adapter of this type cannot run the job."""
    return None if type_name in known else f"has no {type_name} {kind}"
