"""The warm process: has wasmtime loaded, and forks itself for each job.

It ends when its control socket is closed, however the node died. A job's process ends at the latest with
the warm process (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import socket
import time
from typing import Any

from bacalhau_p2p.executors.isolation.walls import Walls
from bacalhau_p2p.executors.wasm.child.job import perform
from bacalhau_p2p.executors.wasm.child.sealed_modules import SealedModules

_SOFTWARE_FAILURE = 70
"""Exit status when the job's process did not report (EX_SOFTWARE)."""

BURST = 0.25
"""Seconds for which a job runs like the node itself, so that short jobs are fast; then it shares the CPU with
others by its niceness."""


def run(control_fd: int) -> None:
    """Report that it is ready, and serve until the control socket is closed."""
    control = socket.socket(fileno=control_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which then closes the socket
    try:
        import wasmtime.component  # noqa: F401 - loaded here, every fork has it
    except (ImportError, OSError, RuntimeError) as error:
        control.send(json.dumps({"unavailable": f"wasmtime cannot be loaded: {error}"}).encode())
        return
    walls = Walls.build()
    control.send(json.dumps({"ready": True, "walls": walls.names}).encode())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each job takes two
    gc.collect()
    gc.freeze()  # these objects are shared with every fork: a collection there must not copy them
    _serve(control, walls)


def _serve(control: socket.socket, walls: Walls) -> None:
    poll = select.poll()
    poll.register(control, select.POLLIN)
    jobs: dict[int, tuple[int, socket.socket]] = {}
    sealed = SealedModules()
    bursts: dict[int, tuple[float, int]] = {}  # by pidfd, when its burst ends, and its niceness then
    while True:
        for fd, _ in poll.poll(_end_bursts(bursts, jobs)):
            if fd in jobs:
                poll.unregister(fd)
                bursts.pop(fd, None)
                _reap(fd, *jobs.pop(fd))
                continue
            message, received, _, _ = socket.recv_fds(control, 64, 4)
            if not message:
                return
            pidfd = _fork(received, jobs, walls, sealed)
            if pidfd is not None:
                poll.register(pidfd, select.POLLIN)
                bursts[pidfd] = (time.monotonic() + BURST, int(message))


def _end_bursts(
    bursts: dict[int, tuple[float, int]], jobs: dict[int, tuple[int, socket.socket]]
) -> float | None:
    """Make the jobs nice that have had their burst; milliseconds until that of the next one ends."""
    now = time.monotonic()
    for pidfd, (end, niceness) in list(bursts.items()):
        if end > now:  # the others began later
            return (end - now) * 1000 + 1
        del bursts[pidfd]
        if niceness:
            os.setpriority(os.PRIO_PROCESS, jobs[pidfd][0], niceness)
    return None


def _fork(
    received: list[int],
    jobs: dict[int, tuple[int, socket.socket]],
    walls: Walls,
    sealed: SealedModules,
) -> int | None:
    """Start the process of one job; its pidfd, or None when no process could be started."""
    job = socket.socket(fileno=received[0])
    try:
        spec = _read_spec(received[3], sealed)
        pid = walls.fork()
        if pid == 0:
            _become_job(walls, spec, *received[:3])
    except OSError as error:
        _report(job, {"refused": f"no process could be started: {error.strerror}"})
        job.close()
        return None
    finally:
        for fd in received[1:]:
            os.close(fd)
    pidfd = os.pidfd_open(pid)
    jobs[pidfd] = (pid, job)
    try:
        socket.send_fds(job, [json.dumps({"pid": pid}).encode()], [pidfd])
    except OSError:  # the node has died, so nothing else could end the job
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return pidfd


def _reap(pidfd: int, pid: int, job: socket.socket) -> None:
    """Report the exit status of a job's process that has ended."""
    _, status, usage = os.wait4(pid, 0)
    os.close(pidfd)
    _report(
        job,
        {
            "status": os.waitstatus_to_exitcode(status),
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_memory": usage.ru_maxrss * 1024,
        },
    )
    job.close()


def _report(job: socket.socket, message: dict[str, Any]) -> bool:
    """Send to the node; False when it no longer listens."""
    try:
        job.send(json.dumps(message).encode())
    except OSError:
        return False
    return True


def _read_spec(fd: int, sealed: SealedModules) -> dict[str, Any]:
    """What the process of the job shall do. Each module that it runs has the descriptor of its memory file,
    or -1."""
    spec: dict[str, Any] = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    if not spec.get("component"):
        for module in spec.get("modules", ()):
            module["memory"] = sealed.descriptor(module)
    return spec


def _become_job(walls: Walls, spec: dict[str, Any], job_fd: int, out: int, err: int) -> None:
    """In the forked process: perform the job, report, and exit."""
    status = _SOFTWARE_FAILURE
    try:
        walls.follow_parent()
        os.dup2(out, 1)
        os.dup2(err, 2)
        memory = {module.get("memory", -1) for module in spec.get("modules", ())} - {-1}
        _close_all_except(job_fd, *walls.descriptors, *memory)
        os.write(job_fd, json.dumps(perform(spec, walls)).encode())
        status = 0
    finally:
        os._exit(status)


def _close_all_except(*kept: int) -> None:
    """Close all descriptors from 3 on, but not these."""
    start = 3
    for fd in sorted(kept):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
