"""Starts the processes in which WebAssembly runs.

Starting Python and loading wasmtime takes about 100 ms, so one process stays warm and forks itself for
each job; the node itself has threads and never forks. All sockets are SOCK_SEQPACKET pairs.

- Node to warm process, one message for each job: its niceness after its first moments, as decimal text,
  with four descriptors: the job's socket, its stdout, its stderr, and a memory file with the spec (JSON:
  `run_spec` and `ModuleCompiler` make it).
- To the node on the job's socket, each a JSON object: `{"pid"}` with a pidfd, or `{"refused"}`, from
  the warm process; the job's report (`{"exit"}`, `{"stale"}`, `{"compiled"}` or `{"failed", "permanent"}`);
  `{"status", "cpu_seconds", "peak_memory"}` when the job's process has ended, as the kernel counted them; a
  negative status is a signal. Then the socket is closed.
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
from bacalhau_p2p.executors.isolation.walls import ALL_WALLS
from bacalhau_p2p.executors.wasm.reports import REPORT_SIZE, read_report
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

START_TIMEOUT = 4.5
"""Seconds for the warm process to get ready, and then to fork: it takes 0.1 and 0.002."""

_SCRIPT = Path(__file__).parent / "child" / "__main__.py"
_PACKAGE_FOLDER = Path(__file__).parents[3]
REPORTS_LIMIT = 16
"""Messages of one process that are read; two are sent."""
REAP_TIMEOUT = 1.0
"""Seconds for the warm process to say what a process has used: it takes less than a millisecond."""


class JobProcess:
    """The process of one job."""

    def __init__(self, pidfd: int, messages: trio.socket.SocketType, received: Mapping[str, Any]) -> None:
        """`received` has the messages that came already."""
        self._pidfd = pidfd
        self._messages = messages
        self._report = dict(received)

    async def report(self) -> Mapping[str, Any]:
        """What it reported, with its exit status, once it has ended. Without `status`, the warm process
        ended too."""
        for _ in range(REPORTS_LIMIT):
            try:
                message = await self._messages.recv(REPORT_SIZE)
            except ConnectionError:
                break
            if not message:  # the warm process has forgotten it, too
                break
            self._report |= read_report(message)
        return self._report

    @property
    def used(self) -> tuple[float, int]:
        """CPU seconds, and bytes of memory at most, once it has ended."""
        return self._report.get("cpu_seconds", 0.0), self._report.get("peak_memory", 0)

    async def end(self) -> None:
        """Returns when it has ended, and `used` is known. Not cancelled: it takes a few milliseconds."""
        await self.kill()
        if "status" not in self._report:
            with trio.move_on_after(REAP_TIMEOUT, shield=True):
                await self.report()

    async def kill(self) -> None:
        """Returns when it has ended. Not cancelled: it takes a few milliseconds."""
        with trio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await trio.lowlevel.wait_readable(self._pidfd)


class WarmProcess:
    """The process that forks."""

    def __init__(self, process: subprocess.Popen[bytes], control: trio.socket.SocketType) -> None:
        self._process = process
        self.control = control
        self.walls: tuple[str, ...] = ()
        """What it can put between its jobs and the machine."""

    @classmethod
    async def start(cls) -> WarmProcess:
        """Returns when it is ready. Raises ExecutorError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            control = trio.socket.from_stdlib_socket(ours)
            wasmtime = importlib.util.find_spec("wasmtime")
            if wasmtime is None or wasmtime.origin is None:
                control.close()
                raise ExecutorError("wasmtime is not installed")
            folders = [str(_PACKAGE_FOLDER), str(Path(wasmtime.origin).parent.parent)]
            # In this thread, although it takes 2 ms: a worker thread that ends would kill every process
            # that asked to die with its parent.
            process = subprocess.Popen(  # noqa: ASYNC220, S603
                [sys.executable, "-I", "-S", str(_SCRIPT), *folders, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the node, which ends its runs in its own order
            )
        warm = cls(process, control)
        problem = await warm._wait_until_ready()
        if problem:
            await warm.stop()
            raise ExecutorError(f"WebAssembly cannot be run: {problem}")
        return warm

    async def _wait_until_ready(self) -> str:
        """Why it is not ready, empty if it is."""
        with trio.move_on_after(START_TIMEOUT):
            try:
                message = json.loads(await self.control.recv(REPORT_SIZE) or b"{}")
            except ConnectionError:
                message = {}
            if message.get("ready"):
                self.walls = tuple(message["walls"])
                return ""
            return str(message.get("unavailable", "its process ended before it was ready"))
        return f"its process was not ready within {START_TIMEOUT:g} s"

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def stop(self) -> None:
        """Returns when it has ended; the kernel kills what it forked."""
        self.control.close()
        self._process.kill()
        await trio.to_thread.run_sync(self._process.wait)


class Processes:
    """Starts one process for each job, by way of a warm process, which is started when first needed."""

    def __init__(self) -> None:
        self._warm: WarmProcess | None = None
        self._lock = trio.Lock()
        self._running: set[JobProcess] = set()
        self.closed = False
        self.walls: tuple[str, ...] = ()
        """Those of the warm process that was started last."""

    async def warm_up(self) -> None:
        """Start the warm process unless it runs. Raises ExecutorError."""
        async with self._lock:
            await self._ready()

    async def _ready(self) -> WarmProcess:
        if self.closed:
            raise ExecutorError("this node is stopping")
        if self._warm is not None and not self._warm.alive:
            await self._warm.stop()
            self._warm = None
        if self._warm is None:
            self._warm = await WarmProcess.start()
            if self._warm.walls != self.walls:
                self.walls = self._warm.walls
                missing = sorted(ALL_WALLS - set(self.walls))
                log.info("wasm_walls", has=", ".join(self.walls), missing=", ".join(missing) or "none")
        return self._warm

    @asynccontextmanager
    async def process(self, spec: Mapping[str, Any], stdout: int, stderr: int) -> AsyncIterator[JobProcess]:
        """A process that does what `spec` says, for the length of the block; on exit it has ended.

        The descriptors become its stdout and stderr; the caller closes its own copies.
        Raises ExecutorError, not permanent, when none can be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        messages = trio.socket.from_stdlib_socket(ours)
        with messages:
            with theirs, trio.CancelScope(shield=True):
                async with self._lock:
                    warm = await self._ready()
                    pidfd, received = await _fork(warm, messages, theirs, (stdout, stderr), spec)
                    process = JobProcess(pidfd, messages, received)
                    self._running.add(process)
            try:
                yield process
            finally:
                await process.kill()
                self._running.remove(process)
                os.close(pidfd)

    async def aclose(self) -> None:
        """When this returns, no process runs, and none can be started."""
        with trio.CancelScope(shield=True):
            async with self._lock:
                self.closed = True
                for process in list(self._running):
                    await process.kill()
                if self._warm is not None:
                    await self._warm.stop()
                    self._warm = None


async def _fork(
    warm: WarmProcess,
    messages: trio.socket.SocketType,
    theirs: socket.socket,
    streams: tuple[int, int],
    spec: Mapping[str, Any],
) -> tuple[int, dict[str, Any]]:
    """Have a process started: its pidfd, and the messages that came first. Raises ExecutorError."""
    received: dict[str, Any] = {}
    problem = f"no process was started within {START_TIMEOUT:g} s"
    file = os.memfd_create("spec", os.MFD_CLOEXEC)
    try:
        os.write(file, json.dumps(spec).encode())
        rights = array("i", [theirs.fileno(), *streams, file])
        with trio.move_on_after(START_TIMEOUT):
            await warm.control.sendmsg(
                [str(spec.get("niceness", 0)).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            )
            theirs.close()  # so that our end is closed when all others are
            while True:
                message, ancillary, _, _ = await messages.recvmsg(
                    REPORT_SIZE, socket.CMSG_SPACE(rights.itemsize), socket.MSG_CMSG_CLOEXEC
                )
                if ancillary:
                    return array("i", ancillary[0][2])[0], received
                if not message:
                    problem = "the warm process ended"
                    break
                received |= read_report(message)
                if "refused" in received:
                    raise ExecutorError(f"WebAssembly cannot be run now: {received['refused']}")
    except OSError as error:
        problem = error.strerror or str(error)
    finally:
        os.close(file)
    await warm.stop()  # also ends a process that it may have started
    raise ExecutorError(f"WebAssembly cannot be run now: {problem}")
