"""`/api/v1/orchestrator/nodes`: the nodes that this one knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from bacalhau_p2p.api.bodies.nodes import NodeAnswer, NodeChange, NodeChanged, NodePage
from bacalhau_p2p.api.documented import one_of
from bacalhau_p2p.api.json_bodies import JSON, MAX_SMALL_BODY, json_object, json_response
from bacalhau_p2p.api.openapi import takes
from bacalhau_p2p.errors import ApiError
from bacalhau_p2p.model.api_nodes import node_state_to_json
from bacalhau_p2p.model.base import UnixSeconds
from bacalhau_p2p.model.label_filter import label_filter
from bacalhau_p2p.node import Node
from bacalhau_p2p.node.known_nodes import KnownNode

MAX_PAGE = 10_000
"""Nodes on one page, which is also how many this node can know."""

_ORDERS: dict[str, Callable[[KnownNode], Any]] = {
    "id": lambda known: known.info.id,
    "type": lambda known: known.info.compute is None,
    "available_cpu": lambda known: _available(known, "cpu"),
    "available_memory": lambda known: _available(known, "memory"),
    "available_disk": lambda known: _available(known, "disk"),
    "available_gpu": lambda known: _available(known, "gpu"),
}
"""Bacalhau's orders of nodes."""


def node_routes(node: Node) -> APIRouter:
    routes = APIRouter()

    @routes.get("/nodes", response_model=NodePage)
    async def list_nodes(
        labels: Annotated[list[str] | None, Query()] = None,
        approval: Annotated[str, Query(alias="filter-approval")] = "",
        status: Annotated[str, Query(alias="filter-status")] = "",
        order_by: Annotated[str, one_of(*_ORDERS)] = "id",
        reverse: bool = False,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
        next_token: Annotated[int, Query(ge=0, le=MAX_PAGE)] = 0,
    ) -> Response:
        """List the nodes that this one knows, itself included."""
        if order_by not in _ORDERS:
            raise ApiError(f"unknown order_by {order_by!r}; use {', '.join(_ORDERS)}", status=400)
        now, matches = node.clock(), label_filter(labels)
        found = [
            known
            for known in sorted(node.known_nodes(), key=_ORDERS[order_by], reverse=reverse)
            if matches(known.info.labels)
            and approval.upper() in ("", "APPROVED")
            and status.upper() in ("", _connection(known, now))
        ]
        page = [_state(known, now) for known in found[next_token : next_token + limit]]
        more = len(found) > next_token + limit
        # Bacalhau's Go clients read either key, those in Python only the second.
        token = str(next_token + limit) if more else ""
        return json_response({"NextToken": token, "Nodes": page, "nodes": page})

    @routes.get("/nodes/{node_id}", response_model=NodeAnswer)
    async def get_node(node_id: str) -> Response:
        """A node, by its id, or an unambiguous beginning or end of it."""
        shown = _state(node.resolve_node(node_id), node.clock())
        return json_response({"Node": shown, "node": shown})

    @routes.put("/nodes/{node_id}", response_model=NodeChanged, openapi_extra=takes(NodeChange))
    async def update_node(node_id: str, request: Request) -> Response:
        """Nobody approves nodes here: says so."""
        await json_object(request, most=MAX_SMALL_BODY)
        node.resolve_node(node_id)
        reason = "nobody approves nodes here: every peer takes part, except those in denied_peers"
        return json_response({"Success": False, "Error": reason})

    return routes


def _state(known: KnownNode, now: UnixSeconds) -> JSON:
    return node_state_to_json(
        known.info_at(now),
        fresh=known.is_fresh(now),
        heard=max(known.received_at, known.load_received_at),
        since=known.fresh_since,
        stale_at=known.stale_at,
    )


def _connection(known: KnownNode, now: UnixSeconds) -> str:
    return "CONNECTED" if known.is_fresh(now) else "DISCONNECTED"


def _available(known: KnownNode, resource: str) -> float:
    compute = known.info.compute
    return -1.0 if compute is None else float(getattr(compute.available_capacity, resource))
