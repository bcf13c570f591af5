"""The ASGI application of a node: its HTTP API in the shape of Bacalhau's `/api/v1` (see `docs/api.md`)."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI
from starlette.types import ASGIApp

from bacalhau_p2p.api.access import AccessControl
from bacalhau_p2p.api.agent import agent_routes
from bacalhau_p2p.api.authentication import authentication_routes
from bacalhau_p2p.api.blank_parameters import IgnoreBlankParameters
from bacalhau_p2p.api.content import content_routes
from bacalhau_p2p.api.direct_routes import DirectRoutes
from bacalhau_p2p.api.error_responses import add_error_handlers
from bacalhau_p2p.api.gateway import gateway_routes
from bacalhau_p2p.api.monitoring import monitoring_routes
from bacalhau_p2p.api.orchestrator import orchestrator_routes
from bacalhau_p2p.metrics.node_metrics import NodeMetrics
from bacalhau_p2p.node import Node
from bacalhau_p2p.version import __version__

_ORCHESTRATOR = "/api/v1/orchestrator"


def create_app(node: Node, counters: Mapping[str, int] | None = None) -> ASGIApp:
    """`counters` are those of the server, for `/api/v1/agent/node`."""
    counters = {} if counters is None else counters
    app = FastAPI(title="bacalhau_p2p", version=__version__, docs_url=None, redoc_url=None)
    orchestrator = orchestrator_routes(node)
    app.include_router(orchestrator, prefix=_ORCHESTRATOR)
    app.include_router(agent_routes(node, counters), prefix="/api/v1/agent")
    app.include_router(authentication_routes(node), prefix="/api/v1/auth")
    app.include_router(content_routes(node), prefix="/api/v1/content")
    app.include_router(gateway_routes(node))
    app.include_router(monitoring_routes(node, NodeMetrics(node, counters)))
    add_error_handlers(app)
    routed = DirectRoutes(app, {_ORCHESTRATOR: orchestrator})
    return AccessControl(
        IgnoreBlankParameters(routed), token=node.settings.api_token, gateway=node.settings.gateway
    )
