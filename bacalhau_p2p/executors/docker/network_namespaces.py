"""Listens inside the network namespace of a container, from this process.

A socket belongs to the namespace in which it was made, whoever uses it afterwards. So a helper thread enters
the namespace of the container, makes a listening socket there and ends. What is accepted from it is served by
the ordinary tasks of this process, whose own connections leave by the network of this machine. The socket
ends with this process, also when that is killed.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from pathlib import Path

from bacalhau_p2p.errors import ExecutorError

_CLONE_NEWNET = 0x40000000
_CAP_SYS_ADMIN = 21
BACKLOG = 64
"""Connections of a job that wait to be accepted."""


def may_enter_namespaces() -> bool:
    """Whether the kernel lets this process enter the network namespaces of containers."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    effective = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(effective.split()[1], 16) >> _CAP_SYS_ADMIN & 1)


def listen_in(pid: int, container_id: str, port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1 in the network namespace of a process of this container. Blocks.

    Raises ExecutorError, also when the engine is not on this machine, so that the number means another
    process here.
    """
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _failed(error.strerror or str(error)) from None
    try:
        # After it was opened: what is open stays what it is, even if the number goes to another process.
        if container_id not in _text(f"/proc/{pid}/cgroup") or _is_own(namespace):
            raise _failed("the Docker engine is not on this machine")
        return _listen(namespace, port)
    finally:
        os.close(namespace)


def _is_own(namespace: int) -> bool:
    own = Path("/proc/self/ns/net").stat()
    found = os.fstat(namespace)
    return (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)


def _listen(namespace: int, port: int) -> socket.socket:
    made: list[socket.socket] = []
    failure: list[OSError] = []

    def enter() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace, _CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            made.append(_listener(port))
        except OSError as error:
            failure.append(error)

    # A thread of its own, which ends: one of a pool would stay in the namespace.
    thread = threading.Thread(target=enter, name="network-namespace", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise _failed(failure[0].strerror or str(failure[0]))
    return made[0]


def _listener(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        # After a restart of this node, connections of the earlier process may linger at the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _failed(reason: str) -> ExecutorError:
    return ExecutorError(f"the network of the job cannot be opened: {reason}")
