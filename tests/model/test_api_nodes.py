"""Nodes in Bacalhau's format."""

from __future__ import annotations

import json

import pytest

from bacalhau_p2p.model.api_nodes import (
    NEVER,
    node_from_json,
    node_state_to_json,
    node_to_json,
    version_to_json,
)
from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.resources import Resources

NODE = NodeInfo(
    id=PeerID("12D3KooWa"),
    addresses=("/ip4/1.2.3.4/tcp/1",),
    labels={"a": "b"},
    requester=True,
    version="0.1.0",
    compute=ComputeInfo(engines=("wasm",), publishers=("ipfs",), max_capacity=Resources(cpu=2, memory=10)),
)


def test_a_node_survives_the_round_trip():
    assert node_from_json(json.loads(json.dumps(node_to_json(NODE)))) == NODE
    without = NODE.replace(compute=None)
    assert node_from_json(node_to_json(without)) == without


def test_a_node_that_runs_jobs_is_a_compute_node_with_what_it_offers():
    shown = node_to_json(NODE)
    assert (shown["NodeID"], shown["NodeType"], shown["Labels"]) == ("12D3KooWa", "Compute", {"a": "b"})
    assert shown["ComputeNodeInfo"]["ExecutionEngines"] == ["wasm"]
    assert shown["ComputeNodeInfo"]["MaxCapacity"] == {"CPU": 2, "Memory": 10, "Disk": 0, "GPU": 0}
    assert "ComputeNodeInfo" not in node_to_json(NODE.replace(compute=None))


def test_times_of_a_connection_are_text_and_never_is_gos_zero():
    fresh = node_state_to_json(NODE, fresh=True, heard=2.5, since=1.0, stale_at=47.0)["ConnectionState"]
    assert fresh == {
        "Status": "CONNECTED",
        "LastHeartbeat": "1970-01-01T00:00:02.500000Z",
        "LastComputeSeqNum": 0,
        "LastOrchestratorSeqNum": 0,
        "ConnectedSince": "1970-01-01T00:00:01Z",
        "DisconnectedSince": NEVER,
    }
    stale = node_state_to_json(NODE, fresh=False, heard=2.5, since=1.0, stale_at=47.0)
    assert (stale["Connection"], stale["Membership"]) == ("DISCONNECTED", "APPROVED")
    assert stale["ConnectionState"]["DisconnectedSince"] == "1970-01-01T00:00:47Z"


@pytest.mark.parametrize("version", ["0.1.0", "", "7", "x.y"])
def test_any_version_has_the_keys_that_clients_read(version):
    shown = version_to_json(version)
    assert shown["GitVersion"] == f"v{version}"
    assert all(isinstance(value, str) for value in shown.values())


@pytest.mark.parametrize("value", [None, [], {}, {"NodeID": 7}, {"NodeID": "a", "ComputeNodeInfo": 3}])
def test_a_malformed_node_is_a_value_error(value):
    with pytest.raises(ValueError, match=r"\w"):
        node_from_json(value)
