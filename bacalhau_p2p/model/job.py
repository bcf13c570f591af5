"""The job specification: Bacalhau's v1 job, and our `Verifier` and `Deal`.

Read one from JSON or YAML with `parse_job` (in `model/parsing.py`): that accepts keys in any
letter case and names every fault by its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from bacalhau_p2p.model.base import Model

DEFAULT_CPU = "0.1"
DEFAULT_MEMORY = "100mb"
DEFAULT_EXECUTION_TIMEOUT = 30 * 60
DEFAULT_TOTAL_TIMEOUT = 60 * 60
DEFAULT_QUEUE_TIMEOUT = 5 * 60


class SpecConfig(Model):
    """A choice among interchangeable parts: which (`type`, lower case) and its parameters."""

    type: str
    params: Mapping[str, Any] = Field(default_factory=dict)


class InputSource(Model):
    """Data for the job: where it comes from, and the absolute path at which the job finds it."""

    target: str
    source: SpecConfig
    alias: str = ""


class ResultPath(Model):
    """A folder that the job fills: `path` inside the job, `name` in the results folder."""

    name: str
    path: str


class ResourceSpec(Model):
    """What one execution may use, as text: `0.5` or `500m` cores, `256mb`, `1gb`."""

    cpu: str = ""
    memory: str = ""
    disk: str = ""
    gpu: str = ""


class NetworkSpec(Model):
    """What the job may reach: `None`, `HTTP` to the listed domains, or `Full`."""

    type: str = "None"
    domains: tuple[str, ...] = ()


class Timeouts(Model):
    """Seconds; 0 means the default of the node."""

    execution_timeout: float = 0
    queue_timeout: float = 0
    total_timeout: float = 0


class Constraint(Model):
    """A node is eligible only if its label `key` stands in this relation to `values`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class Deal(Model):
    """How many bids must be in before the first is accepted; 0 means one."""

    min_bids: int = 0


class Task(Model):
    """What to run."""

    name: str = "main"
    engine: SpecConfig
    publisher: SpecConfig = SpecConfig(type="ipfs")
    env: Mapping[str, str] = Field(default_factory=dict)
    meta: Mapping[str, str] = Field(default_factory=dict)
    input_sources: tuple[InputSource, ...] = ()
    result_paths: tuple[ResultPath, ...] = ()
    resources: ResourceSpec = ResourceSpec()
    network: NetworkSpec = NetworkSpec()
    timeouts: Timeouts = Timeouts()


class JobSpec(Model):
    """What the user asks for. Always has exactly one task."""

    name: str = ""
    namespace: str = "default"
    type: str = "batch"
    priority: int = 0
    count: int = 1
    constraints: tuple[Constraint, ...] = ()
    labels: Mapping[str, str] = Field(default_factory=dict)
    meta: Mapping[str, str] = Field(default_factory=dict)
    verifier: SpecConfig = SpecConfig(type="noop")
    deal: Deal = Deal()
    tasks: tuple[Task, ...]

    @property
    def task(self) -> Task:
        return self.tasks[0]
