"""Calls to a Docker engine, in threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import trio

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.executors.docker.engine_errors import translated
from bacalhau_p2p.runtime.threads import Threads

if TYPE_CHECKING:
    from docker import APIClient

P = ParamSpec("P")
T = TypeVar("T")

PING_TIMEOUT = 4
"""Seconds for an engine to answer a ping."""

CALL_TIMEOUT = 60
"""Seconds without a byte from the engine, after which a call has failed."""

CALL_THREADS = 8
"""Short calls at one time; an engine serialises most of them anyway."""


class DockerEngine:
    """One Docker engine, found as the `docker` command finds it (`DOCKER_HOST` or the default socket)."""

    def __init__(self) -> None:
        self._client: APIClient | None = None
        self._connecting = trio.Lock()
        # Not trio's own threads, which are shared with everything else that blocks: a container that
        # runs for hours must not take one of forty, and the call that kills it must not wait for one.
        self._short_calls = Threads(CALL_THREADS)
        self._long_calls = Threads(math.inf)

    async def client(self) -> APIClient:
        """The SDK's client, connected. Raises ExecutorError."""
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await self.call(_connect, CALL_TIMEOUT)
        return self._client

    async def ping(self) -> str | None:
        """Why no engine answers, or None. Takes at most a little more than PING_TIMEOUT."""
        with trio.move_on_after(PING_TIMEOUT + 0.5):
            try:
                await self.abandonable_call(_ping)
            except ExecutorError as error:
                return str(error)
            return None
        return f"the Docker engine did not answer within {PING_TIMEOUT} s"

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """One short call. Raises ExecutorError.

        Cancelled: waits for the call to end, so that its outcome is known.
        """
        return await self._short_calls.run(_translate, partial(function, *args, **kwargs))

    async def abandonable_call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """One short call. Raises ExecutorError. Cancelled: returns at once, and the call continues."""
        return await self._short_calls.run_abandonable(_translate, partial(function, *args, **kwargs))

    async def long_call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """A call that may take as long as a job. Otherwise as `abandonable_call`."""
        return await self._long_calls.run_abandonable(_translate, partial(function, *args, **kwargs))

    async def aclose(self) -> None:
        """Close the connections; containers are not touched."""
        if self._client is not None:
            client, self._client = self._client, None
            await self.call(client.close)


def _connect(timeout: int) -> APIClient:
    # The SDK takes 0.2 s to import, which a node without the docker engine saves.
    import docker
    from docker.utils import kwargs_from_env

    return docker.APIClient(version="auto", timeout=timeout, **kwargs_from_env())


def _ping() -> None:
    client = _connect(PING_TIMEOUT)
    try:
        client.ping()
    finally:
        client.close()


def _translate(function: Callable[[], T]) -> T:
    with translated():
        return function()
