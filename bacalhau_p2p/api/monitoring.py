"""`/metrics` and `/api/v1/healthz`: for programs that watch this node."""

from __future__ import annotations

from fastapi import APIRouter, Response

from bacalhau_p2p.api.bodies.nodes import Health
from bacalhau_p2p.metrics.node_metrics import CONTENT_TYPE, NodeMetrics
from bacalhau_p2p.node import Node


def monitoring_routes(node: Node, measured: NodeMetrics) -> APIRouter:
    routes = APIRouter(tags=["nodes"])

    @routes.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        """The metrics of this node, in the text format of Prometheus."""
        return Response(measured.text(), headers={"Content-Type": CONTENT_TYPE})

    @routes.get("/api/v1/healthz", response_model=Health, tags=["nodes"])
    async def healthz(response: Response) -> dict[str, object]:
        """Whether this node can do what it is meant to do. 503 with the reasons if it cannot."""
        problems = node.health()
        response.status_code = 503 if problems else 200
        return {"Status": "Unavailable" if problems else "OK", "Problems": problems}

    return routes
