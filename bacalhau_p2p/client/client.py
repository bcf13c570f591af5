"""A node's HTTP API for programs on trio or asyncio: what `open_node` offers in this process, from elsewhere.

async with Client("http://127.0.0.1:1234") as client:
    job = await client.submit(docker("busybox", "echo", "hello"))
    result = await job.wait_result()
    await result.fetch("results")
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from bacalhau_p2p.client.async_connection import AsyncConnection
from bacalhau_p2p.client.environment import ENV_TOKEN, api_url, host_of, port_of
from bacalhau_p2p.client.http_backend import HttpBackend
from bacalhau_p2p.client.on_backend import OnBackend
from bacalhau_p2p.client.retry import RECONNECT


class Client(OnBackend):
    """A node behind HTTP, on trio or asyncio. Its methods are those of `AnyNode`.

    Use it in an `async with` block, or call `aclose` at the end. Without a `url` it uses the node that the
    variables of the command line name, or the one on this machine. `token` is sent with every request, for
    nodes that require one; by default it is that of the environment.

    A request fails with NodeUnavailable when the node does not respond within 30 seconds (10 minutes where it
    may have to find content first). What waits for a job survives a restart of the node: it tries to reach it
    again for `reconnect` seconds.
    """

    def __init__(
        self, url: str | None = None, *, token: str | None = None, reconnect: float = RECONNECT
    ) -> None:
        """Raises SettingsError when a variable is malformed."""
        if url is None:
            url = api_url(host_of(os.environ), port_of(os.environ))
        if token is None:
            token = os.environ.get(ENV_TOKEN, "")
        self.url = url.rstrip("/")
        self._connection = AsyncConnection(self.url, token=token)
        self._backend = HttpBackend(self._connection, reconnect=reconnect)

    def __repr__(self) -> str:
        return f"<Client of {self.url}>"

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._maps.aclose()
        await self._connection.__aexit__(kind, error, trace)

    async def aclose(self) -> None:
        """End the maps that still run, and close all connections."""
        await self._maps.aclose()
        await self._connection.aclose()
