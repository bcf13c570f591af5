"""Nodes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bacalhau_p2p.api.bodies.base import Body, Page
from bacalhau_p2p.model.resources import Resources


class Alive(Body):
    status: str


class Health(Body):
    status: Literal["OK", "Unavailable"]
    problems: list[str]


class VersionBody(Body):
    major: str
    minor: str
    git_version: str
    git_commit: str
    build_date: str
    goos: str = Field(alias="GOOS")
    goarch: str = Field(alias="GOARCH")


class ComputeNodeInfo(Body):
    """What a node offers, and how busy it is."""

    execution_engines: list[str]
    publishers: list[str]
    storage_sources: list[str]
    networks: list[str] = Field(description="Networks that jobs on it may have: HTTP, Full.")
    max_capacity: Resources
    queue_capacity: dict[str, Any]
    available_capacity: Resources
    max_job_requirements: Resources
    running_executions: int
    enqueued_executions: int
    address: str = Field(alias="address")


class NodeInfoBody(Body):
    """What a node announces about itself."""

    node_id: str
    node_type: Literal["Compute", "Requester"]
    labels: dict[str, str]
    supported_protocols: list[str]
    bacalhau_version: VersionBody
    compute_node_info: ComputeNodeInfo | None = Field(default=None, description="If it runs jobs.")
    addresses: list[str]
    version: str
    requester: bool = Field(description="Whether it takes jobs from users.")
    dht: bool = Field(alias="DHT", description="Whether it serves the DHT.")
    gateway: str
    interval: float = Field(description="Seconds until its next announcement at most.")
    leaving: bool
    sent: float = Field(description="Seconds since 1970.")


class ConnectionState(Body):
    status: str
    last_heartbeat: str
    last_compute_seq_num: int
    last_orchestrator_seq_num: int
    connected_since: str
    disconnected_since: str


class NodeStateBody(Body):
    info: NodeInfoBody
    membership: Literal["APPROVED"]
    connection: Literal["CONNECTED", "DISCONNECTED"] = Field(
        description="Whether the last announcement is fresh."
    )
    connection_state: ConnectionState


class NodePage(Page):
    nodes: list[NodeStateBody]
    lower_case_nodes: list[NodeStateBody] = Field(alias="nodes", description="The same again.")


class NodeAnswer(Body):
    node: NodeStateBody
    lower_case_node: NodeStateBody = Field(alias="node", description="The same again.")


class NodeChange(Body):
    """Nothing that matters: nobody approves nodes."""

    action: Any = None
    message: Any = None


class NodeChanged(Body):
    success: bool
    error: str


class ThisNode(NodeInfoBody):
    """This node, with what it counts. `docs/api.md` explains the counters."""

    connected_peers: list[str]
    counters: dict[str, int]
    worst_senders: list[dict[str, Any]] | dict[str, Any]
    cut_off: dict[str, int]
    chosen_last: dict[str, int]
    walls: dict[str, list[str]]
    ignored_events: dict[str, dict[str, int]]
    dropped_events: dict[str, list[dict[str, Any]]]


class AgentConfig(Body):
    config: dict[str, Any] = Field(alias="config")


class AuthenticationConfig(Body):
    version: str
    config: dict[str, Any]


class Methods(Page):
    methods: dict[str, dict[str, Any]]


class Credentials(Body):
    name: str = ""
    method_data: str = Field(description="What the method wants, as JSON in base64.")


class Authentication(Body):
    success: bool = Field(alias="success")
    token: str = Field(default="", alias="token")
    reason: str = Field(default="", alias="reason")


class Authenticated(Body):
    authentication: Authentication
