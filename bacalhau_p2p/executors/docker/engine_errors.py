"""Errors of the Docker SDK as ExecutorError, with the root cause first."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from bacalhau_p2p.errors import ExecutorError
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

_WRAPPERS = re.compile(
    r"^(?:failed to create (?:shim )?task|failed to create shim|OCI runtime \w+ failed|runc \w+ failed"
    r"|unable to start container process|error during container init"
    r"|(?:container|process|rootfs)_linux\.go:\d+"
    r"|(?:starting container process|running exec|container init|process_linux\.go:\d+: \w+ \w+ \w+) caused"
    r"|invalid mount config for type \"bind\"): "
)
_TRAILERS = re.compile(r"(?:: unknown|: No such container: \w+)+$")
_PERMANENT = re.compile(
    r"^exec: |^exec .* failed: (?:No such file|Permission denied|Is a directory)"
    r"|^Cannot mkdir|is not a directory|Duplicate mount point|invalid reference format"
    r"|invalid mount path|invalid specification|not a valid"
)
_MOUNT_PROBLEMS = {
    "not a directory": "the image has a file where the job has a folder, or a folder where it has a file",
    "cannot be mounted": "the system needs that path",
    "read-only file system": "the file system there cannot be changed",
}
_MOUNT_REFUSED = re.compile(
    rf'error mounting "[^"]*" to rootfs at "([^"]*)":.*({"|".join(_MOUNT_PROBLEMS)})', re.DOTALL
)
"""Target and problem of a mount that the OCI runtime refuses, on this node as on any other."""
MAX_CAUSE = 500
"""Characters of the engine's words that are passed on or logged."""
MAX_PARSED = 4096
"""Characters of the engine's words that are looked at: they may quote a whole command line."""
_FAILED = "the Docker engine failed"
_CLASSES = {
    "no space left on device": "the disk of this node's Docker engine is full",
    "No such image": "the image was removed from this node",
    "bind source path does not exist": "an input is missing on this node",
    "is already in use": "a container of this execution exists already",
    "docker-init": "the Docker engine has no init",
}
"""What is said for words of the engine."""


@contextmanager
def translated() -> Iterator[None]:
    """Errors of the SDK leave the block as ExecutorError."""
    import requests
    import urllib3
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        raise _failure(str(error.explanation or error)) from error
    except (
        DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
    ) as error:
        raise ExecutorError(_unreachable(error)) from error


def _failure(words: str) -> ExecutorError:
    """The engine's words only where they are about the job: its command, its paths. Of others the class; the
    words go to the log."""
    if mount := _MOUNT_REFUSED.search(words[:MAX_PARSED]):
        target, problem = mount[1][:MAX_CAUSE], _MOUNT_PROBLEMS[mount[2]]
        return ExecutorError(f"nothing can be mounted at {target}: {problem}", permanent=True)
    cause = root_cause(words)
    if is_permanent(cause):
        return ExecutorError(cause[:MAX_CAUSE], permanent=True)
    log.warning("docker_engine_failed", reason=cause[:MAX_CAUSE])
    return ExecutorError(next((what for part, what in _CLASSES.items() if part in cause), _FAILED))


def root_cause(message: str) -> str:
    """An engine's message without the chain of the programs that passed it on.

    `failed to create shim task: OCI runtime create failed: ...: exec: "x": not found: unknown`
    becomes `exec: "x": not found`.
    """
    message = message[:MAX_PARSED].strip()
    while match := _WRAPPERS.match(message):
        message = message[match.end() :]
    return _TRAILERS.sub("", message) or _FAILED


def is_permanent(message: str) -> bool:
    """Whether the job itself is the cause, so that every engine would refuse it."""
    return bool(_PERMANENT.search(message)) and "docker-init" not in message


def _unreachable(error: BaseException) -> str:
    address = _engine_address()
    cause = _os_error(error)
    if cause is None:
        return f"the Docker engine at {address} does not answer: {error}"
    if cause.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return f"no Docker engine runs at {address}"
    if cause.errno in (errno.EACCES, errno.EPERM):
        return f"permission denied by the Docker engine at {address}: add this user to the group docker"
    return f"the Docker engine at {address} does not answer: {cause.strerror or cause}"


def _engine_address() -> str:
    from docker.constants import DEFAULT_UNIX_SOCKET
    from docker.utils import kwargs_from_env

    return str(kwargs_from_env().get("base_url") or DEFAULT_UNIX_SOCKET.replace("http+", ""))


def _os_error(error: BaseException) -> OSError | None:
    """The operating system's error, which the SDK and requests hide in causes and in arguments."""
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
        # requests' errors derive from OSError but are not the operating system's.
        is_from_os = isinstance(item, OSError) and not isinstance(item, requests.exceptions.RequestException)
        if isinstance(item, OSError) and is_from_os and item.errno:
            return item
        queue.extend((item.args, item.__cause__, item.__context__))
    return None
