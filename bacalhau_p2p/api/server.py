"""Serves a node's API over HTTP, on trio."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.types import ASGIApp
from trio import TaskStatus

from bacalhau_p2p.api.app import create_app
from bacalhau_p2p.errors import SettingsError
from bacalhau_p2p.lifetimes import background
from bacalhau_p2p.node import Node

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
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = GRACE
    config.shutdown_timeout = GRACE
    stopping, ended = trio.Event(), trio.Event()
    async with background() as nursery:
        await nursery.start(_run, create_app(node), config, stopping, ended)
        node.api_url = url
        try:
            yield url
        finally:
            node.api_url = ""
            stopping.set()
            with trio.move_on_after(2 * GRACE):
                await ended.wait()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
        raise SettingsError(f"API address {host}:{port}: {reason}") from error


async def _run(
    app: ASGIApp,
    config: Config,
    stopping: trio.Event,
    ended: trio.Event,
    *,
    task_status: TaskStatus[list[str]],
) -> None:
    await serve(cast(Any, app), config, shutdown_trigger=stopping.wait, task_status=task_status)
    ended.set()
