"""Calls of the Linux kernel that Python does not have. Each raises OSError."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x0002_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REC, MS_PRIVATE = 0x4000, 0x4_0000
_MNT_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPABILITY_VERSION_3 = 0x2008_0522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def checked(result: int) -> int:
    """The result of a call. Raises OSError when it says that the call failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(number: int, *arguments: object) -> int:
    """A system call by its number; integers are passed as 64 bits."""
    return checked(
        _libc.syscall(
            ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
        )
    )


def prctl(option: int, value: int | ctypes.Array[ctypes.c_char] = 0, more: object = 0) -> None:
    arguments = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in (value, more, 0, 0)]
    checked(_libc.prctl(option, *arguments))


def unshare(flags: int) -> None:
    checked(_libc.unshare(flags))


def setns(fd: int, kind: int) -> None:
    checked(_libc.setns(fd, kind))


def mount(kind: str, target: str, flags: int, options: str = "") -> None:
    """Mount a file system that has no device. With an empty `kind`, change how a mount propagates."""
    name = kind.encode() or None
    checked(_libc.mount(name, target.encode(), name, ctypes.c_ulong(flags), options.encode() or None))


def replace_root(folder: str) -> None:
    """Make a mount point the root, and unmount the old root with everything below it."""
    os.chdir(folder)
    syscall(_PIVOT_ROOT[os.uname().machine], b".", b".")
    checked(_libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up all capabilities of this thread for good: permitted, effective and inheritable."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    checked(_libc.capset(header, (ctypes.c_uint32 * 6)()))


def narrow_capabilities() -> None:
    """Make sure that no program that this process starts gets a capability. Needs CAP_SETPCAP."""
    for number in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        prctl(PR_CAPBSET_DROP, number)
