"""A network of real nodes whose requester serves its API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bacalhau_p2p.api.server import serve_api
from bacalhau_p2p.testing.network import NodeNetwork, open_network

JOB = {"Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": "hello\n"}}}]}
JOBS = "/api/v1/orchestrator/jobs"


@asynccontextmanager
async def served(
    folder: Path, *, compute_nodes: int = 1, **settings: Any
) -> AsyncIterator[tuple[NodeNetwork, str]]:
    """A network whose requester serves its API at the URL."""
    async with (
        open_network(folder, compute_nodes=compute_nodes, api_port=0, **settings) as network,
        serve_api(network.requester) as url,
    ):
        yield network, url
