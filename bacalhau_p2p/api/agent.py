"""`/api/v1/agent`: this node."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping

from fastapi import APIRouter, Response

from bacalhau_p2p.api.bodies.content import Nothing
from bacalhau_p2p.api.bodies.nodes import AgentConfig, Alive, AuthenticationConfig, ThisNode, VersionBody
from bacalhau_p2p.api.json_bodies import JSON, json_response
from bacalhau_p2p.model.api_nodes import node_to_json, version_to_json
from bacalhau_p2p.node import Node
from bacalhau_p2p.version import __version__

_GO_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Go's names of machines."""

MAX_DROPPED = 20
"""Kinds of dropped events that are shown, for each component."""


def agent_routes(node: Node, counters: Mapping[str, int]) -> APIRouter:
    routes = APIRouter()

    @routes.get("/alive", response_model=Alive)
    async def alive() -> Response:
        """Whether the node answers."""
        return json_response({"Status": "OK"})

    @routes.get("/version", response_model=VersionBody)
    async def version() -> Response:
        """The version of the node."""
        return json_response(_version())

    @routes.get("/authconfig", response_model=AuthenticationConfig)
    async def authentication_config() -> Response:
        """How to sign in elsewhere: there is nothing to sign in to."""
        return json_response({"Version": "1.0.0", "Config": {}})

    @routes.get("/config", response_model=AgentConfig)
    async def config() -> Response:
        """The settings of the node that Bacalhau has as well, in its words."""
        return json_response({"config": _config(node)})

    @routes.get("/debug", response_model=Nothing)
    async def debug() -> Response:
        """Nothing: `/node` has the counters."""
        return json_response({})

    @routes.get("/node", response_model=ThisNode)
    async def this_node() -> Response:
        """The node, as it announces itself, with its connected peers and its counters."""
        return json_response(_this_node(node, counters))

    return routes


def _this_node(node: Node, counters: Mapping[str, int]) -> JSON:
    info = node.info()
    chosen_last = node.requester.penalties() if info.requester else {}
    return {
        **node_to_json(info),
        "BacalhauVersion": _version(),
        "ConnectedPeers": sorted(node.transport.peers),
        "Counters": {**node.counters, **counters},
        "WorstSenders": node.transport.budgets.offences.worst(),
        "CutOff": {peer: math.ceil(left) for peer, left in node.transport.budgets.cut_off_for().items()},
        "ChosenLast": {peer: math.ceil(left) for peer, left in chosen_last.items()},
        "Walls": node.walls,
        "IgnoredEvents": {name: dict(ignored) for name, ignored in node.ignored_events.items()},
        "DroppedEvents": {
            name: [
                {"Event": kind, "Author": author, "Count": count}
                for (kind, author), count in dropped.most_common(MAX_DROPPED)
            ]
            for name, dropped in node.dropped_events.items()
        },
    }


def _version() -> JSON:
    machine = platform.machine()
    return version_to_json(
        __version__, system=platform.system().lower(), machine=_GO_MACHINES.get(machine, machine)
    )


def _config(node: Node) -> JSON:
    settings = node.settings
    return {
        "API": {"Host": settings.api_host, "Port": settings.api_port},
        "DataDir": str(settings.data_dir),
        "Orchestrator": {"Enabled": settings.requester},
        "Compute": {"Enabled": settings.compute},
        "JobAdmissionControl": {
            "Locality": settings.data_locality,
            "RejectStatelessJobs": settings.reject_stateless,
            "AcceptNetworkedJobs": settings.accept_networked != "none",
        },
        "DisableAnalytics": True,
    }
