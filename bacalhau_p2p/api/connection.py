"""One HTTP connection as hypercorn serves it, with fewer steps of the scheduler.

hypercorn 0.18 makes a task a request to watch for idle connections, and gives up the processor twice for
each piece that it sends, of which an answer has three: half of what a small answer takes.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import trio
from hypercorn.events import Event, RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import TrioSingleTask

SMALL = 16 * 1024
"""Bytes that are sent without giving way to others, if the socket takes them."""


class Connection(TCPServer):
    """Begin it with `await connection.run()`; there is no TLS."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._clock = _IdleClock(self.config.keep_alive_timeout, self.context.terminated.wait)
        self.idle_task = self._clock

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData) and len(event.data) <= SMALL and not self.send_lock.locked():
            try:
                sent = os.write(self.stream.socket.fileno(), event.data) if event.data else 0
            except OSError:  # it is full, or broken or closed, of which trio tells more
                sent = 0
            if sent == len(event.data):
                return
            event = RawData(data=event.data[sent:])
        await super().protocol_send(event)

    async def _read_data(self) -> None:
        try:
            await super()._read_data()
        finally:
            self._clock.end()

    async def _idle_timeout(self) -> None:
        with trio.CancelScope(shield=True):
            await self._initiate_server_close()


class _IdleClock(TrioSingleTask):
    """What closes a connection on which nothing is asked for long, in one task as long as it lasts."""

    def __init__(self, patience: float, terminated: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._patience = patience
        self._terminated = terminated
        self._scope = trio.CancelScope()
        self._begun = False
        self._idle = False
        self._ended = False

    async def restart(self, task_group: Any, action: Callable[[], Awaitable[None]]) -> None:
        """The connection is idle from now on."""
        self._idle = True
        self._scope.deadline = trio.current_time() + self._patience
        if not self._begun:
            self._begun = True
            task_group.spawn(self._watch, action)

    async def stop(self) -> None:
        """Something is asked; who answers it sees whether the server ends meanwhile."""
        self._idle = False
        self._scope.deadline = inf

    def end(self) -> None:
        self._ended = True
        self._scope.cancel()

    async def _watch(self, close: Callable[[], Awaitable[None]]) -> None:
        with self._scope:
            await self._terminated()
        if self._idle and not self._ended:
            await close()
