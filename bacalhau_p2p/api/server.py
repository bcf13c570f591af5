"""Serves a node's API over HTTP, on trio."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp

from bacalhau_p2p.api.app import create_app
from bacalhau_p2p.api.connection import Connection
from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.node import Node
from bacalhau_p2p.runtime.tasks import background

GRACE = 0.5
"""Seconds that requests under way get when the server stops; those that wait for a job do not matter."""


@asynccontextmanager
async def serve_api(node: Node) -> AsyncIterator[str]:
    """Serve the API of `node` for the length of the block; gives its base URL.

    Raises SettingsError when the address cannot be had.
    """
    settings = node.settings
    listener = _listen(settings.api_host, settings.api_port)
    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    url = f"http://{host}:{listener.getsockname()[1]}"
    stopping, ended = trio.Event(), trio.Event()
    async with background() as nursery:
        nursery.start_soon(_serve, create_app(node), listener, stopping, ended)
        node.api_url = url
        try:
            yield url
        finally:
            node.api_url = ""
            stopping.set()
            with trio.move_on_after(2 * GRACE):
                await ended.wait()


async def _serve(app: ASGIApp, listener: socket.socket, stopping: trio.Event, ended: trio.Event) -> None:
    config = Config()
    config.accesslog = None
    config.errorlog = None
    context = WorkerContext(None)
    wrapped = ASGIWrapper(cast(Any, app))

    async def answer(stream: trio.SocketStream) -> None:
        await Connection(wrapped, config, context, ConnectionState({}), stream).run()

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            listening = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
            accept = partial(trio.serve_listeners, answer, [listening], handler_nursery=connections)
            accepting.start_soon(accept)
            await stopping.wait()
            accepting.cancel_scope.cancel()
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + GRACE
    ended.set()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
        raise SettingsError(f"API address {host}:{port}: {reason}") from error
