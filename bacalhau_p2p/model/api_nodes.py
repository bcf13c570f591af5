"""Nodes as JSON of the HTTP API, in Bacalhau's format.

The server uses the `*_to_json` functions, clients `node_from_json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bacalhau_p2p.model.base import UnixSeconds
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time, which Bacalhau's clients take for none."""
BUILD_DATE = "1970-01-01T00:00:00Z"
"""This program is not built, and its clients want a date."""
PROTOCOL = "bacalhau/bprotocol/1.0.0"

JSON = dict[str, Any]


def version_to_json(version: str, *, system: str = "", machine: str = "") -> JSON:
    """A version such as `0.1.0`, on an operating system and a machine in Go's names if they are known."""
    major, _, rest = version.partition(".")
    return {
        "Major": major,
        "Minor": rest.partition(".")[0],
        "GitVersion": f"v{version}",
        "GitCommit": "",
        "BuildDate": BUILD_DATE,
        "GOOS": system,
        "GOARCH": machine,
    }


def node_to_json(node: NodeInfo) -> JSON:
    """Bacalhau's NodeInfo. What only our nodes announce stands beside it, with the names of the wire."""
    announced = node.model_dump(mode="json", by_alias=True, exclude={"id", "labels", "compute"})
    shown = {
        "NodeID": node.id,
        "NodeType": "Requester" if node.compute is None else "Compute",
        "Labels": dict(node.labels),
        "SupportedProtocols": [PROTOCOL],
        "BacalhauVersion": version_to_json(node.version),
        **announced,
    }
    return shown if node.compute is None else {**shown, "ComputeNodeInfo": _compute_to_json(node.compute)}


def node_state_to_json(
    node: NodeInfo, *, fresh: bool, heard: UnixSeconds, since: UnixSeconds, stale_at: UnixSeconds
) -> JSON:
    """Bacalhau's NodeState: what a node announced, and whether that is `fresh`.

    `heard` is when it was last heard of, `since` when it came or came back, `stale_at` when its
    announcement lapses.
    """
    # `Connection` is Bacalhau's word; here it says whether the node's last announcement is fresh.
    connection = "CONNECTED" if fresh else "DISCONNECTED"
    return {
        "Info": node_to_json(node),
        "Membership": "APPROVED",
        "Connection": connection,
        "ConnectionState": {
            "Status": connection,
            "LastHeartbeat": _time_text(heard),
            "LastComputeSeqNum": 0,
            "LastOrchestratorSeqNum": 0,
            "ConnectedSince": _time_text(since),
            "DisconnectedSince": NEVER if fresh else _time_text(stale_at),
        },
    }


def node_from_json(value: object) -> NodeInfo:
    """What a node announced, from its `Info`. Raises ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError("a node is not a map")
    compute = value.get("ComputeNodeInfo")
    if compute is not None and not isinstance(compute, Mapping):
        raise ValueError("ComputeNodeInfo is not a map")
    announced = {key: item for key, item in value.items() if key not in ("ID", "Compute")}
    if compute is not None:
        announced["Compute"] = {**compute, "Engines": compute.get("ExecutionEngines") or ()}
    return NodeInfo.from_wire({**announced, "ID": value.get("NodeID")})


def _compute_to_json(compute: ComputeInfo) -> JSON:
    shown = compute.model_dump(mode="json", by_alias=True)
    return {
        "ExecutionEngines": shown["Engines"],
        "Publishers": shown["Publishers"],
        "StorageSources": shown["StorageSources"],
        "Networks": shown["Networks"],
        "MaxCapacity": shown["MaxCapacity"],
        "QueueCapacity": {},
        "AvailableCapacity": shown["AvailableCapacity"],
        "MaxJobRequirements": shown["MaxCapacity"],
        "RunningExecutions": shown["RunningExecutions"],
        "EnqueuedExecutions": 0,
        "address": "",
    }


def _time_text(time: UnixSeconds) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat().replace("+00:00", "Z")
