"""What native code tries that got out of its sandbox, into the process of a job."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bacalhau_p2p.executors.isolation import kernel

_PTRACE_ATTACH, _PTRACE_TRACEME = 16, 0
_X86_64 = {
    "ptrace": 101,
    "process_vm_readv": 310,
    "io_uring_setup": 425,
    "add_key": 248,
    "userfaultfd": 323,
    "personality": 135,
    "fsopen": 430,
}


@dataclass(frozen=True)
class Targets:
    """What belongs to the node and to other jobs. The paths exist."""

    secret: Path
    other_job: Path
    node: int
    """A process of the node's."""
    port: int
    """Something of the node's that listens on loopback."""
    unix_socket: Path
    output: int
    """A descriptor of the job's own output folder."""


def open_descriptors() -> list[int]:
    """The descriptors of this process but for the standard streams."""
    found = []
    for fd in range(3, 256):
        try:
            os.fstat(fd)
        except OSError:
            continue
        found.append(fd)
    return found


def succeeding_attempts(targets: Targets) -> list[str]:
    """Try everything; what was possible. Without walls this gives up root's rights before it tries what
    would harm the machine."""
    names = []
    for name, attempt in _attempts(targets):
        try:
            attempt()
        except (OSError, AttributeError):
            continue
        names.append(name)
    return names


def _attempts(t: Targets) -> Iterator[tuple[str, Callable[[], object]]]:
    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    def write_to_tmp() -> None:
        path = Path(f"/tmp/escaped-{os.getpid()}")
        path.touch()
        path.unlink()

    def connect(family: int, address: object) -> None:
        with socket.socket(family, socket.SOCK_STREAM) as stream:
            stream.connect(address)  # type: ignore[arg-type]

    def chmod_own() -> None:
        os.close(os.open("setuid", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=t.output))
        os.chmod("setuid", 0o4755, dir_fd=t.output)

    yield "reads the node's key", lambda: os.open(t.secret, os.O_RDONLY)
    yield "reads /etc/passwd", lambda: os.open("/etc/passwd", os.O_RDONLY)
    yield "lists /etc", lambda: os.scandir("/etc")
    yield "reads another process's memory", lambda: os.open(f"/proc/{t.node}/mem", os.O_RDONLY)
    yield "reads another process's environment", lambda: os.open(f"/proc/{t.node}/environ", os.O_RDONLY)
    yield "leaves its output folder", lambda: os.open("../secret", os.O_RDONLY, dir_fd=t.output)
    yield "writes into another job's folder", lambda: os.open(t.other_job / "x", os.O_CREAT | os.O_RDWR)
    yield "lists another job's folder", lambda: os.scandir(t.other_job)
    yield "writes to /tmp", write_to_tmp
    yield "links the node's key", lambda: os.link(t.secret, "key", dst_dir_fd=t.output)
    yield "makes a device", lambda: os.mknod("null", 0o20666, os.makedev(1, 3), dir_fd=t.output)
    yield "makes a pipe", lambda: os.mkfifo("pipe", dir_fd=t.output)
    yield "makes a set-uid file", chmod_own
    yield "gives a file away", lambda: os.chown("setuid", 0, 0, dir_fd=t.output)
    yield "connects to the node's API", lambda: connect(socket.AF_INET, ("127.0.0.1", t.port))
    yield "connects to a local socket", lambda: connect(socket.AF_UNIX, str(t.unix_socket))
    yield "opens a UDP socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    yield "opens a raw socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    yield "opens a netlink socket", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    yield "signals the node", lambda: os.kill(t.node, 0)
    yield "signals everybody", lambda: os.kill(-1, 0)
    yield "signals by descriptor", lambda: signal.pidfd_send_signal(os.pidfd_open(t.node), 0)
    yield "forks", fork
    yield "starts a program", lambda: os.posix_spawn(sys.executable, ["python", "-c", ""], {})
    yield "becomes root", lambda: os.setuid(0)
    yield "becomes another user", lambda: os.setuid(1)
    yield "changes its groups", lambda: os.setgroups([0])
    yield "changes its root", lambda: os.chroot(".")
    yield "mounts", lambda: kernel.mount("tmpfs", "/tmp", 0)
    for name, flag in (
        ("user", 0x10000000),
        ("mount", 0x20000),
        ("network", 0x40000000),
        ("pid", 0x20000000),
    ):
        yield f"makes a {name} namespace", lambda flag=flag: kernel.unshare(flag)  # type: ignore[misc]
    yield "traces the node", lambda: kernel.syscall(_number("ptrace"), _PTRACE_ATTACH, t.node, 0, 0)
    yield "lets itself be traced", lambda: kernel.syscall(_number("ptrace"), _PTRACE_TRACEME, 0, 0, 0)
    yield "reads the node's memory", lambda: _read_memory(t.node)
    yield (
        "makes an io_uring",
        lambda: kernel.syscall(_number("io_uring_setup"), 1, ctypes.create_string_buffer(120)),
    )
    yield "uses the kernel's keyring", lambda: kernel.syscall(_number("add_key"), b"user", b"x", b"y", 1, -3)
    yield "changes its personality", lambda: kernel.syscall(_number("personality"), 0)
    yield "watches memory", lambda: kernel.syscall(_number("userfaultfd"), 0)
    yield "opens a file system", lambda: kernel.syscall(_number("fsopen"), b"tmpfs", 0)
    yield "raises its limits", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    yield "lowers its niceness", lambda: os.setpriority(os.PRIO_PROCESS, 0, -10)


def _number(name: str) -> int:
    if os.uname().machine != "x86_64":
        raise OSError("unknown")
    return _X86_64[name]


def _read_memory(pid: int) -> None:
    there = ctypes.create_string_buffer(8)
    address = (ctypes.c_uint64 * 2)(ctypes.addressof(there), 8)
    kernel.syscall(_number("process_vm_readv"), pid, address, 1, address, 1, 0)
