"""Succeeds when a node of the network at BACALHAU_P2P_API_HOST and _PORT offers this engine."""

import http.client
import json
import os
import sys

connection = http.client.HTTPConnection(
    os.environ["BACALHAU_P2P_API_HOST"], int(os.environ["BACALHAU_P2P_API_PORT"]), timeout=10
)
connection.request("GET", "/api/v1/orchestrator/nodes")
nodes = json.load(connection.getresponse())["Nodes"]
sys.exit(
    not any(
        sys.argv[1] in node["Info"].get("ComputeNodeInfo", {}).get("ExecutionEngines", ()) for node in nodes
    )
)
