"""Serves a node's API over HTTP, on trio."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from bacalhau_p2p.api.app import create_app
from bacalhau_p2p.api.connections import MAX_CONNECTIONS, ConnectionServer, ConnectionTable
from bacalhau_p2p.api.deadlines import Deadlines
from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.node import Node
from bacalhau_p2p.page.routes import Page
from bacalhau_p2p.runtime.descriptors import shares
from bacalhau_p2p.runtime.listen_faults import why_not_listening
from bacalhau_p2p.runtime.tasks import background
from bacalhau_p2p.runtime.token_guesses import TokenGuesses

SHUTDOWN_GRACE = 0.5
"""Seconds that open requests get to finish when the server stops; those that wait for a job are cut off."""


@asynccontextmanager
async def serve_api(node: Node) -> AsyncIterator[str]:
    """Serve the API of `node` for the length of the block; yields its base URL.

    Raises SettingsError when it cannot listen on the configured address. A server that ends by itself is a
    bug and arrives as an ExceptionGroup.
    """
    settings = node.settings
    listener = _listen(settings.api_host, settings.api_port)
    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    url = f"http://{host}:{listener.getsockname()[1]}"
    counters: Counter[str] = Counter()
    page = Page(node, TokenGuesses(counters))
    table = ConnectionTable(min(MAX_CONNECTIONS, shares().api), counters)
    server = ConnectionServer(Deadlines(create_app(node, counters, page=page), table), table, counters)
    stop, stopped = trio.Event(), trio.Event()
    async with background() as nursery:
        nursery.start_soon(page.run)
        nursery.start_soon(page.guesses.report_regularly)
        nursery.start_soon(_serve, server, listener, stop, stopped)
        node.api_url = url
        try:
            yield url
        finally:
            node.api_url = ""
            stop.set()
            with trio.move_on_after(2 * SHUTDOWN_GRACE):
                await stopped.wait()


async def _serve(
    server: ConnectionServer, listener: socket.socket, stop: trio.Event, stopped: trio.Event
) -> None:
    await server.run(trio.SocketListener(trio.socket.from_stdlib_socket(listener)), stop, SHUTDOWN_GRACE)
    stopped.set()
    if not stop.is_set():
        raise RuntimeError("the HTTP server has ended by itself")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = why_not_listening(error, host_flag="--api-host", port_flag="--api-port")
        raise SettingsError(f"cannot listen on API address {host}:{port}: {reason}") from error
