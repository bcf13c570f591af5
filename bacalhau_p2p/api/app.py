"""The ASGI application of a node: its HTTP API in the shape of Bacalhau's `/api/v1` (see `docs/api.md`)."""

from __future__ import annotations

from collections import Counter
from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp

from bacalhau_p2p.api.access import AccessControl
from bacalhau_p2p.api.agent import agent_routes
from bacalhau_p2p.api.authentication import authentication_routes
from bacalhau_p2p.api.blank_parameters import IgnoreBlankParameters
from bacalhau_p2p.api.content import content_routes
from bacalhau_p2p.api.deferred_app import DeferredApp
from bacalhau_p2p.api.direct_routes import DirectRoutes
from bacalhau_p2p.api.docs_page import docs_routes
from bacalhau_p2p.api.error_responses import add_error_handlers
from bacalhau_p2p.api.events import event_routes
from bacalhau_p2p.api.gateway import gateway_routes
from bacalhau_p2p.api.monitoring import monitoring_routes
from bacalhau_p2p.api.openapi import ERRORS, openapi
from bacalhau_p2p.api.orchestrator import job_routes, orchestrator_routes
from bacalhau_p2p.api.result_archives import signing_key
from bacalhau_p2p.metrics.node_metrics import NodeMetrics
from bacalhau_p2p.node import Node
from bacalhau_p2p.page.routes import Page
from bacalhau_p2p.runtime.token_guesses import TokenGuesses
from bacalhau_p2p.version import __version__

_ORCHESTRATOR = "/api/v1/orchestrator"


def create_app(node: Node, counters: Counter[str] | None = None, *, page: Page | None = None) -> ASGIApp:
    """`counters` are those of the server, for `/api/v1/agent/node`. `page` is served at `/`."""
    counters = Counter() if counters is None else counters
    guesses = page.guesses if page is not None else TokenGuesses(counters)
    metrics = NodeMetrics(node, counters)

    def build() -> ASGIApp:
        app = framework_app(node, counters, metrics, guesses)
        if page is not None:
            app.include_router(page.routes())
        return IgnoreBlankParameters(DirectRoutes(app, {_ORCHESTRATOR: app.state.jobs}))

    settings = node.settings
    return AccessControl(
        DeferredApp(build),
        token=settings.api_token,
        url_key=signing_key(node),
        guesses=guesses,
        gateway=settings.gateway,
    )


def framework_app(
    node: Node,
    counters: Counter[str],
    metrics: NodeMetrics | None = None,
    guesses: TokenGuesses | None = None,
) -> FastAPI:
    """All routes, without what stands in front of them."""
    app = FastAPI(
        title="bacalhau_p2p",
        summary="Runs jobs on the peers that hold the data. Bacalhau's clients work with it.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        responses=ERRORS,
    )
    app.openapi = partial(openapi, app)  # type: ignore[method-assign]
    jobs, guesses = job_routes(node), guesses or TokenGuesses(counters)
    app.include_router(orchestrator_routes(node, jobs), prefix=_ORCHESTRATOR)
    app.include_router(event_routes(node), prefix="/api/v1", tags=["jobs"])
    app.include_router(agent_routes(node, counters), prefix="/api/v1/agent", tags=["nodes"])
    app.include_router(authentication_routes(node, guesses), prefix="/api/v1/auth", tags=["authentication"])
    app.include_router(content_routes(node), prefix="/api/v1/content", tags=["content"])
    app.include_router(gateway_routes(node), tags=["content"])
    app.include_router(monitoring_routes(node, metrics or NodeMetrics(node, counters)))
    app.include_router(docs_routes())
    add_error_handlers(app)
    app.state.jobs = jobs
    return app
