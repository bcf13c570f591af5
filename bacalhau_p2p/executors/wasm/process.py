"""The node's side of the processes in which WebAssembly runs.

Starting Python and loading wasmtime takes about 100 ms, so one process is kept warm and forks itself
for each job; the node itself, which has threads, never forks. All sockets are SOCK_SEQPACKET pairs.

- Node to warm process, one message a job: `run`, with four descriptors: the job's socket, its
  stdout, its stderr, and a memory file with the spec (JSON, see `wasm.py`).
- To the node on the job's socket, each a JSON object: `{"pid"}` with a pidfd, or `{"refused"}`, from
  the warm process; what the job reports (`{"exit", "stale"}`, `{"compiled"}` or `{"failed", "permanent"}`);
  `{"status"}` when the job's process is gone and buried: negative for a signal. Then the socket ends.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from array import array
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from bacalhau_p2p.errors import ExecutorError

START_TIMEOUT = 4.5
"""Seconds that the warm process may take to get ready, and then to fork: it takes 0.1 and 0.002."""

_SCRIPT = Path(__file__).with_name("child.py")
_MESSAGE = 65536


class Child:
    """One job's process."""

    def __init__(self, pidfd: int, messages: trio.socket.SocketType, early: Mapping[str, Any]) -> None:
        self._pidfd = pidfd
        self._messages = messages
        self._report = dict(early)

    async def report(self) -> Mapping[str, Any]:
        """What it reported, with its exit status, once it is gone. No `status`: it went with its parent."""
        while True:  # to the end of the socket, for then nothing of it is left in the warm process either
            try:
                message = await self._messages.recv(_MESSAGE)
            except ConnectionError:
                break
            if not message:
                break
            self._report |= json.loads(message)
        return self._report

    async def kill(self) -> None:
        """Returns when it is gone. Not to be cancelled: it takes a few milliseconds."""
        with trio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await trio.lowlevel.wait_readable(self._pidfd)


class _Warm:
    """The process that forks."""

    def __init__(self, process: subprocess.Popen[bytes], control: trio.socket.SocketType) -> None:
        self.process = process
        self.control = control

    @classmethod
    async def start(cls) -> _Warm:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            control = trio.socket.from_stdlib_socket(ours)
            wasmtime = importlib.util.find_spec("wasmtime")
            if wasmtime is None or wasmtime.origin is None:
                control.close()
                raise ExecutorError("wasmtime is not installed")
            packages = Path(wasmtime.origin).parent.parent
            number = str(theirs.fileno())
            # In this very thread, which must not mind: the start of a process takes 2 ms, and a worker
            # thread that ends would take with it whatever asked to die with its parent.
            process = subprocess.Popen(  # noqa: ASYNC220, S603
                [sys.executable, "-I", "-S", str(_SCRIPT), str(packages), number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the node, which ends its runs in its own order
            )
        warm = cls(process, control)
        problem = f"its process was not ready within {START_TIMEOUT:g} s"
        with trio.move_on_after(START_TIMEOUT):
            try:
                said = json.loads(await control.recv(_MESSAGE) or b"{}")
            except ConnectionError:
                said = {}
            if said.get("ready"):
                return warm
            problem = said.get("unavailable", "its process ended before it was ready")
        await warm.stop()
        raise ExecutorError(f"WebAssembly cannot be run: {problem}")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    async def stop(self) -> None:
        """Returns when it is gone; what it forked is killed by the kernel."""
        self.control.close()
        self.process.kill()
        await trio.to_thread.run_sync(self.process.wait)


class Processes:
    """Starts one process a job, by way of the warm process, which is started when first needed."""

    def __init__(self) -> None:
        self._warm: _Warm | None = None
        self._lock = trio.Lock()
        self._children: set[Child] = set()
        self.closed = False

    async def warm_up(self) -> None:
        """Have the warm process ready. Raises ExecutorError."""
        async with self._lock:
            await self._ready()

    async def _ready(self) -> _Warm:
        if self.closed:
            raise ExecutorError("this node is stopping")
        if self._warm is not None and not self._warm.alive:
            await self._warm.stop()
            self._warm = None
        if self._warm is None:
            self._warm = await _Warm.start()
        return self._warm

    @asynccontextmanager
    async def child(self, spec: Mapping[str, Any], stdout: int, stderr: int) -> AsyncIterator[Child]:
        """One process that does what `spec` says, for the length of the block; it is gone on exit.

        The descriptors become its stdout and stderr; the caller closes its own copies.
        Raises ExecutorError, not permanent, when none can be had.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        messages = trio.socket.from_stdlib_socket(ours)
        with messages:
            with theirs, trio.CancelScope(shield=True):
                async with self._lock:
                    warm = await self._ready()
                    pidfd, early = await _fork(warm, messages, theirs, (stdout, stderr), spec)
                    child = Child(pidfd, messages, early)
                    self._children.add(child)
            try:
                yield child
            finally:
                await child.kill()
                self._children.remove(child)
                os.close(pidfd)

    async def aclose(self) -> None:
        """Nothing runs any more when it returns, and nothing can be started."""
        with trio.CancelScope(shield=True):
            async with self._lock:
                self.closed = True
                for child in list(self._children):
                    await child.kill()
                if self._warm is not None:
                    await self._warm.stop()
                    self._warm = None


async def _fork(
    warm: _Warm,
    messages: trio.socket.SocketType,
    theirs: socket.socket,
    streams: tuple[int, int],
    spec: Mapping[str, Any],
) -> tuple[int, dict[str, Any]]:
    """Ask for a process: its pidfd, and what it may have reported already. Raises ExecutorError."""
    early: dict[str, Any] = {}
    problem = "no process was had in time"
    file = os.memfd_create("spec", os.MFD_CLOEXEC)
    try:
        os.write(file, json.dumps(spec).encode())
        rights = array("i", [theirs.fileno(), *streams, file])
        with trio.move_on_after(START_TIMEOUT):
            await warm.control.sendmsg([b"run"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            theirs.close()  # so that our end ends when all others are gone
            while True:
                message, ancillary, _, _ = await messages.recvmsg(
                    _MESSAGE, socket.CMSG_SPACE(rights.itemsize), socket.MSG_CMSG_CLOEXEC
                )
                if ancillary:
                    return array("i", ancillary[0][2])[0], early
                if not message:
                    problem = "the process that starts others ended"
                    break
                early |= json.loads(message)
                if "refused" in early:
                    raise ExecutorError(f"WebAssembly cannot be run now: {early['refused']}")
    except OSError as error:
        problem = error.strerror or str(error)
    finally:
        os.close(file)
    await warm.stop()  # what it may have begun ends with it
    raise ExecutorError(f"WebAssembly cannot be run now: {problem}")
