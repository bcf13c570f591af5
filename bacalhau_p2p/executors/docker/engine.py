"""The Docker SDK behind a wall: blocking calls in threads of their own, its errors in our words."""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import trio

from bacalhau_p2p.errors import ExecutorError

if TYPE_CHECKING:
    from docker import APIClient

P = ParamSpec("P")
T = TypeVar("T")

PING_TIMEOUT = 4
"""Seconds that an engine may take to say that it is there."""

CALL_TIMEOUT = 60
"""Seconds without a word from the engine, after which a call to it has failed."""

CALL_THREADS = 8
"""Short calls at one time; an engine serialises most of them anyway."""


class DockerEngine:
    """One Docker engine, found as the `docker` command finds it (`DOCKER_HOST` or the usual socket)."""

    def __init__(self) -> None:
        self._client: APIClient | None = None
        self._connecting = trio.Lock()
        # trio's own threads are shared with everything else that blocks: a container that runs for
        # hours must not take one of forty, nor may the call that kills it wait for one.
        self._calls = trio.CapacityLimiter(CALL_THREADS)
        self._attended = trio.CapacityLimiter(math.inf)

    async def client(self) -> APIClient:
        """The SDK's client, connected. Raises ExecutorError."""
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await self.call(_connect, CALL_TIMEOUT)
        return self._client

    async def ping(self) -> str | None:
        """Why no engine answers, or None. Takes at most PING_TIMEOUT and a bit."""
        with trio.move_on_after(PING_TIMEOUT + 0.5):
            try:
                await self._run(self._calls, True, _ping)
            except ExecutorError as error:
                return str(error)
            return None
        return f"the Docker engine did not answer within {PING_TIMEOUT} s"

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """One short call. Raises ExecutorError.

        Cancelled: waits for the call all the same, so that its outcome is known.
        """
        return await self._run(self._calls, False, partial(function, *args, **kwargs))

    async def last_call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """One short call that is abandoned when cancelled. Raises ExecutorError."""
        return await self._run(self._calls, True, partial(function, *args, **kwargs))

    async def attend(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """A call that may take as long as a job. Raises ExecutorError.

        Cancelled: it is abandoned, and goes on.
        """
        return await self._run(self._attended, True, partial(function, *args, **kwargs))

    async def _run(self, limiter: trio.CapacityLimiter, abandon: bool, function: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(
            _translated,
            function,
            abandon_on_cancel=abandon,
            limiter=limiter,
        )

    async def aclose(self) -> None:
        """Drop the connections; what runs on the engine is not touched."""
        if self._client is not None:
            client, self._client = self._client, None
            await self.call(client.close)


def _connect(timeout: int) -> APIClient:
    # The SDK takes 0.2 s to import, which a node without the docker engine need not spend.
    import docker
    from docker.utils import kwargs_from_env

    return docker.APIClient(version="auto", timeout=timeout, **kwargs_from_env())


def _ping() -> None:
    client = _connect(PING_TIMEOUT)
    try:
        client.ping()
    finally:
        client.close()


def _translated(function: Callable[[], T]) -> T:
    with translated():
        return function()


@contextmanager
def translated() -> Iterator[None]:
    """What the SDK raises leaves the block as ExecutorError, the root cause first."""
    import requests
    import urllib3
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        message = root_cause(str(error.explanation or error))
        raise ExecutorError(message, permanent=is_permanent(message)) from error
    except (
        DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
    ) as error:
        raise ExecutorError(_unreachable(error)) from error


_WRAPPERS = re.compile(
    r"^(?:failed to create (?:shim )?task|failed to create shim|OCI runtime \w+ failed|runc \w+ failed"
    r"|unable to start container process|error during container init"
    r"|(?:container|process|rootfs)_linux\.go:\d+"
    r"|(?:starting container process|running exec|container init|process_linux\.go:\d+: \w+ \w+ \w+) caused"
    r"|invalid mount config for type \"bind\"): "
)
_TRAILERS = re.compile(r"(?:: unknown|: No such container: \w+)+$")


def root_cause(message: str) -> str:
    """An engine's message without the chain of who passed it on.

    `failed to create shim task: OCI runtime create failed: ...: exec: "x": not found: unknown`
    becomes `exec: "x": not found`.
    """
    message = message.strip()
    while match := _WRAPPERS.match(message):
        message = message[match.end() :]
    return _TRAILERS.sub("", message) or "the Docker engine failed"


_PERMANENT = re.compile(
    r"^exec: |^exec .* failed: (?:No such file|Permission denied|Is a directory)"
    r"|^Cannot mkdir|is not a directory|Duplicate mount point|invalid reference format"
    r"|invalid mount path|invalid specification|not a valid"
)


def is_permanent(message: str) -> bool:
    """Whether the engine refused the job itself, so that another engine would too."""
    return bool(_PERMANENT.search(message)) and "docker-init" not in message


def _unreachable(error: BaseException) -> str:
    where = _engine_address()
    cause = _os_error(error)
    if cause is None:
        return f"the Docker engine at {where} does not answer: {error}"
    if cause.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return f"no Docker engine runs at {where}"
    if cause.errno in (errno.EACCES, errno.EPERM):
        return f"this user may not use the Docker engine at {where}: is it in the group docker?"
    return f"the Docker engine at {where} does not answer: {cause.strerror or cause}"


def _engine_address() -> str:
    from docker.constants import DEFAULT_UNIX_SOCKET
    from docker.utils import kwargs_from_env

    return str(kwargs_from_env().get("base_url") or DEFAULT_UNIX_SOCKET.replace("+unix", ""))


def _os_error(error: BaseException) -> OSError | None:
    """The operating system's own error, which the SDK and requests bury in causes and in arguments."""
    import requests

    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        item = queue.pop(0)
        if id(item) in seen or not isinstance(item, BaseException | tuple):
            continue
        seen.add(id(item))
        if isinstance(item, tuple):
            queue.extend(item)
            continue
        # requests' errors are OSErrors in name only.
        if (
            isinstance(item, OSError)
            and not isinstance(item, requests.exceptions.RequestException)
            and item.errno
        ):
            return item
        queue.extend((item.args, item.__cause__, item.__context__))
    return None
