"""`/api/v1/agent`: this node."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from bacalhau_p2p.model.api_json import node_to_json
from bacalhau_p2p.node import Node
from bacalhau_p2p.version import __version__

JSON = dict[str, Any]

MAX_DROPPED = 20
"""Kinds of dropped events that are shown, for each component."""


def agent_routes(node: Node, counters: Mapping[str, int]) -> APIRouter:
    routes = APIRouter()

    @routes.get("/alive")
    async def alive() -> JSON:
        return {"Status": "OK"}

    @routes.get("/version")
    async def version() -> JSON:
        major, minor, *_ = __version__.split(".")
        return {
            "Major": major,
            "Minor": minor,
            "GitVersion": f"v{__version__}",
            "GOOS": platform.system().lower(),
            "GOARCH": platform.machine(),
        }

    @routes.get("/node")
    async def this_node() -> JSON:
        return {
            **node_to_json(node.info()),
            "ConnectedPeers": sorted(node.transport.peers),
            "Counters": {**node.transport.counters, **node.messenger.counters, **counters},
            "WorstSenders": node.transport.budgets.offences.worst(),
            "CutOff": {peer: math.ceil(left) for peer, left in node.transport.budgets.cut_off_for().items()},
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

    return routes
