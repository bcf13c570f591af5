"""The job specification: Bacalhau's v1 job, with `Verifier` and `Deal` in addition.

`parse_job` in `model/parsing.py` reads one from JSON or YAML, accepts keys in any letter case and reports
every fault with its path. The validators here apply to every job, also to one that a peer sent, so the rest
of the program can rely on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from bacalhau_p2p.model.base import Model
from bacalhau_p2p.model.constraints import Constraint
from bacalhau_p2p.model.domains import Domain
from bacalhau_p2p.model.fields import (
    FEW,
    MAX_COUNT,
    EntryName,
    EnvironmentName,
    EnvironmentValue,
    Line,
    MountPoint,
    Name,
    Seconds,
    TypeName,
    Value,
    check_variable,
)
from bacalhau_p2p.model.partitions import Partition, is_divided
from bacalhau_p2p.model.quantities import MAX_DURATION, parse_bytes, parse_cpu
from bacalhau_p2p.model.resources import Resources, ResourceSpec, parse_resources
from bacalhau_p2p.model.wire_types import Params

DEFAULT_NAMESPACE = "default"
DEFAULT_CPU = "0.1"
DEFAULT_MEMORY = "100mb"
DEFAULT_EXECUTION_TIMEOUT = 30 * 60
DEFAULT_TOTAL_TIMEOUT = 60 * 60
DEFAULT_QUEUE_TIMEOUT = 5 * 60

_Labels = Annotated[Mapping[Name, Value], FEW]


SINGLE_FILES = frozenset({"url", "urldownload"})
"""Sources that are a file of their own name in the folder at their target, which they may share."""

INNER_SOURCES = frozenset({"inline"})
"""Sources whose data is part of the job: it is wherever the job is."""


class SpecConfig(Model):
    """Selects an engine, source, publisher or verifier: its `type` in lower case, and its parameters."""

    type: TypeName
    params: Params = Field(default_factory=dict)


class InputSource(Model):
    """Data for the job: its source, and the absolute path where the job finds it."""

    target: MountPoint
    source: SpecConfig
    alias: Line = ""


class ResultPath(Model):
    """A folder that the job writes: its `path` inside the job, and its `name` in the results folder."""

    name: EntryName
    path: MountPoint


_NETWORKS = {
    "": "None",
    "none": "None",
    "default": "None",
    "http": "HTTP",
    "full": "Full",
    "host": "Full",
    "bridge": "Full",
}
"""Bacalhau's names for networks, and what they mean here. A job has a network only if it asks for one."""


NETWORKS = ("HTTP", "Full")
"""What jobs can ask for beside none."""


def _network_type(name: str) -> str:
    try:
        return _NETWORKS[name.strip().lower()]
    except KeyError:
        raise ValueError("must be None, HTTP or Full") from None


class NetworkSpec(Model):
    """The network access of the job: `None`, `HTTP` to the listed domains, or `Full`."""

    type: Annotated[Line, AfterValidator(_network_type)] = "None"
    domains: Annotated[tuple[Domain, ...], FEW] = ()

    @model_validator(mode="after")
    def _domains_need_http(self) -> Self:
        if self.domains and self.type != "HTTP":
            raise ValueError("Domains require the Type HTTP")
        return self


class Timeouts(Model):
    """Seconds; 0 means the default, and more than a year a year."""

    execution_timeout: Seconds = 0.0
    queue_timeout: Seconds = 0.0
    total_timeout: Seconds = 0.0

    @model_validator(mode="after")
    def _total_covers_the_parts(self) -> Self:
        parts = min(self.execution_timeout + self.queue_timeout, MAX_DURATION)
        if self.total_timeout and parts > self.total_timeout:
            raise ValueError("TotalTimeout must be at least the sum of ExecutionTimeout and QueueTimeout")
        return self


class Deal(Model):
    """What the requester and the nodes agree on.

    `MinBids`: how many bids must arrive before the first one is accepted; 0 means one. `Replicas`: the
    `Count` executions are partitions, each run by so many nodes; 0 leaves that to the rest of the job.
    """

    min_bids: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 0
    replicas: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 0


class Task(Model):
    """What to run."""

    name: Name = "main"
    engine: SpecConfig
    publisher: SpecConfig = SpecConfig(type="ipfs")
    env: Annotated[Mapping[EnvironmentName, EnvironmentValue], FEW] = Field(default_factory=dict)
    meta: _Labels = Field(default_factory=dict)
    input_sources: Annotated[tuple[InputSource, ...], FEW] = ()
    result_paths: Annotated[tuple[ResultPath, ...], FEW] = ()
    resources: ResourceSpec = ResourceSpec()
    network: NetworkSpec = NetworkSpec()
    timeouts: Timeouts = Timeouts()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if len(self.input_sources) + len(self.result_paths) > 1:
            _distinct(
                [
                    *(
                        (f"InputSources[{i}].Target", each.target)
                        for i, each in enumerate(self.input_sources)
                        if each.source.type not in SINGLE_FILES
                    ),
                    *((f"ResultPaths[{i}].Path", each.path) for i, each in enumerate(self.result_paths)),
                ]
            )
            _distinct((f"ResultPaths[{i}].Name", each.name) for i, each in enumerate(self.result_paths))
        if self.engine.type == "docker":
            for name, value in self.env.items():
                check_variable(name, value)
            for i, each in enumerate(self.input_sources):
                _check_docker_path(f"InputSources[{i}].Target", each.target)
            for i, result in enumerate(self.result_paths):
                _check_docker_path(f"ResultPaths[{i}].Path", result.path)
        return self


def _check_docker_path(where: str, path: str) -> None:
    """Raises ValueError for a path at which no container can have a mount."""
    if path == "/dev" or path.split("/")[1] in ("proc", "sys"):
        raise ValueError(f"{where}: nothing of a job can be at /dev or in /proc and /sys of a container")


def _distinct(values: Iterable[tuple[str, str]]) -> None:
    """Raises ValueError when two of these values, each with where it is, are equal."""
    seen: dict[str, str] = {}
    for where, value in values:
        if value in seen:
            raise ValueError(f"{where}: {value} is already {seen[value]}")
        seen[value] = where


def _job_type(name: str) -> str:
    if name in {"batch", "ops"}:
        return name
    if name in {"service", "daemon"}:
        raise ValueError(f"{name} jobs never end and cannot run here; use batch or ops")
    raise ValueError(f"unknown job type {name!r}; use batch or ops")


def _one_task(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    if len(tasks) != 1:
        raise ValueError(f"must have exactly one task, not {len(tasks)}")
    return tasks


def _check_ops(spec: JobSpec) -> None:
    """Raises ValueError for what makes no sense where each node runs the job for itself."""
    if spec.count != 1:
        raise ValueError("Count: an ops job runs once on each node that matches; leave out Count")
    if spec.divided:
        raise ValueError("an ops job is not divided; leave out Partition and Deal.Replicas, or use batch")
    if spec.deterministic:
        raise ValueError("Verifier: the results of an ops job differ and cannot be compared; leave it out")


class JobSpec(Model):
    """What the user submits. Always has exactly one task."""

    name: Line = ""
    namespace: Name = DEFAULT_NAMESPACE
    type: Annotated[TypeName, AfterValidator(_job_type)] = "batch"
    priority: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 1
    constraints: Annotated[tuple[Constraint, ...], FEW] = ()
    labels: _Labels = Field(default_factory=dict)
    meta: _Labels = Field(default_factory=dict)
    verifier: SpecConfig = SpecConfig(type="noop")
    deal: Deal = Deal()
    keep_failed_results: bool = False
    """Keep what failed executions left in their result paths, for a day."""
    tasks: Annotated[tuple[Task, ...], FEW, AfterValidator(_one_task)]

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        if self.type == "ops":
            _check_ops(self)
        elif (self.count > 1 or self.deal.replicas) and self.divided and self.slots > MAX_COUNT:
            raise ValueError(
                f"Count: {self.count} partitions on {self.group_size} nodes each are more than the "
                f"{MAX_COUNT:,} executions that a job may have"
            )
        return self

    @property
    def task(self) -> Task:
        return self.tasks[0]

    @property
    def outer_sources(self) -> list[SpecConfig]:
        """The sources of its inputs, without those whose data is part of the job."""
        sources = (each.source for each in self.task.input_sources)
        return [source for source in sources if source.type not in INNER_SOURCES]

    @property
    def is_ops(self) -> bool:
        """Whether it runs once on each node that matches."""
        return self.type == "ops"

    @property
    def divided(self) -> bool:
        """Whether its executions are partitions of which a node may take several, and whose results differ.

        It is if `Replicas` says so, or if an input is divided."""
        return bool(self.deal.replicas) or any(
            is_divided(each.source.params) for each in self.task.input_sources
        )

    @property
    def group_size(self) -> int:
        """How many executions do the same, each on a node of its own, so that a verifier can compare them."""
        if not self.divided:
            return self.count
        return self.deal.replicas or (max(2, self._confidence) if self.deterministic else 1)

    @property
    def slots(self) -> int:
        """How many executions fill a batch job."""
        return self.count * self.group_size if self.divided else self.count

    @property
    def _confidence(self) -> int:
        given = self.verifier.params.get("Confidence")
        return given if isinstance(given, int) else 0

    @property
    def min_bids(self) -> int:
        """How many bids must arrive before the first one is accepted; at least one."""
        return 1 if self.is_ops else max(1, self.deal.min_bids)

    @property
    def deterministic(self) -> bool:
        """Whether the verifier compares results, so that all honest runs must produce the same ones."""
        return self.verifier.type == "deterministic"

    def partition_of(self, slot: int) -> Partition:
        """What the execution in this slot does. Where all results are compared, all do the same."""
        if self.divided:
            return Partition(slot // self.group_size, self.count)
        alike = self.is_ops or self.verifier.type != "noop"
        return Partition(0, 1) if alike else Partition(slot, self.count)

    @property
    def partitions(self) -> int:
        """Into how many parts the work of the job is divided."""
        return self.partition_of(0).count

    @property
    def resources(self) -> Resources:
        """What one execution may use, with defaults for what the job does not say."""
        return _with_defaults(self.task.resources)

    @property
    def execution_timeout(self) -> float:
        """Seconds that one run may take."""
        timeouts = self.task.timeouts
        if timeouts.execution_timeout:
            return timeouts.execution_timeout
        return min(DEFAULT_EXECUTION_TIMEOUT, timeouts.total_timeout or DEFAULT_EXECUTION_TIMEOUT)

    @property
    def queue_timeout(self) -> float:
        """Seconds that the job may wait until a first bid is accepted."""
        timeouts = self.task.timeouts
        if timeouts.queue_timeout:
            return timeouts.queue_timeout
        return min(DEFAULT_QUEUE_TIMEOUT, timeouts.total_timeout or DEFAULT_QUEUE_TIMEOUT)

    @property
    def total_timeout(self) -> float:
        """Seconds from submission to the end, including all retries. Enough to queue and to run once."""
        given = self.task.timeouts.total_timeout
        return given or max(DEFAULT_TOTAL_TIMEOUT, self.queue_timeout + self.execution_timeout)


NO_SPEC = JobSpec(tasks=(Task(engine=SpecConfig(type="noop")),))
"""Stands for the spec of what has ended, whose own is no longer in memory."""


@lru_cache(maxsize=1024)
def _with_defaults(spec: ResourceSpec) -> Resources:
    asked = parse_resources(spec)
    return asked.replace(
        cpu=asked.cpu or parse_cpu(DEFAULT_CPU), memory=asked.memory or parse_bytes(DEFAULT_MEMORY)
    )
