"""Seccomp: which system calls the process of a job may make.

The list was measured: what wasmtime, its threads and Python call once they are loaded, while compiling and
running. Every other call fails with ENOSYS, so that the C library falls back to an older one.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain

from bacalhau_p2p.executors.isolation.kernel import PR_SET_SECCOMP, prctl

_FILTER = 2
_ALLOW, _KILL_PROCESS = 0x7FFF_0000, 0x8000_0000
_ENOSYS = 0x0005_0000 | 38
_LOAD, _EQUAL, _ANY_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

_CALLS: Mapping[str, tuple[int | None, int | None]] = {
    # memory
    "brk": (12, 214),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    "memfd_create": (319, 279),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    # files that are open
    "close": (3, 57),
    "dup": (32, 23),
    "fadvise64": (221, 223),
    "fallocate": (285, 47),
    "fdatasync": (75, 83),
    "fstat": (5, 80),
    "fsync": (74, 82),
    "ftruncate": (77, 46),
    "getdents64": (217, 61),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "preadv": (295, 69),
    "pwrite64": (18, 68),
    "pwritev": (296, 70),
    "read": (0, 63),
    "readv": (19, 65),
    "write": (1, 64),
    "writev": (20, 66),
    # files by name: Landlock and the mount namespace decide which
    "linkat": (265, 37),
    "mkdirat": (258, 34),
    "newfstatat": (262, 79),
    "openat": (257, 56),
    "openat2": (437, 437),
    "readlinkat": (267, 78),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "statx": (332, 291),
    "symlinkat": (266, 36),
    "unlinkat": (263, 35),
    "utimensat": (280, 88),
    # threads, signals of its own, waiting
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_pwait": (281, 22),
    "epoll_wait": (232, None),
    "eventfd2": (290, 19),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "futex": (202, 98),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "nanosleep": (35, 101),
    "poll": (7, None),
    "ppoll": (271, 73),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "set_robust_list": (273, 99),
    "sigaltstack": (131, 132),
}
_CLONE = (56, 220)
_FCNTL = (72, 25)
_PRCTL = (157, 167)
_PRLIMIT64 = (302, 261)
_TGKILL = (234, 131)

_CLONE_THREAD = 0x1_0000
_CLONE_NAMESPACES = 0x7E02_0080
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030, 1033, 1034)
"""Duplicate, get and set flags, seals of memory files; no locks, and no signals to other processes."""
_PRCTL_OPTIONS = (15, 0x53564D41)
"""The name of a thread, and of memory."""

_ALLOWED, _REFUSED = "allowed", "refused"
_Step = tuple[int, int, str, str]
"""Code, operand, and where to go when a comparison holds and when it does not: a label, "" is the next."""


def supported() -> bool:
    """Whether the numbers of this processor's system calls are known."""
    return os.uname().machine in _ARCHITECTURES


def restrict(pid: int) -> None:
    """Limit this thread, and those that it starts, for good. `pid`: this process, as it sees itself.
    Needs no new privileges to be allowed."""
    program = program_for(pid)
    code = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("@HxxxxxxQ", len(program) // 8, ctypes.addressof(code)))
    prctl(PR_SET_SECCOMP, _FILTER, header)


@cache
def program_for(pid: int) -> bytes:
    """The filter. A process that calls this has it ready for those that it forks."""
    machine = os.uname().machine
    column = list(_ARCHITECTURES).index(machine)
    plain = [numbers[column] for numbers in _CALLS.values()]
    guarded = {
        _CLONE[column]: [
            _load_argument(0),
            (_ANY_SET, _CLONE_NAMESPACES, _REFUSED, ""),
            (_ANY_SET, _CLONE_THREAD, _ALLOWED, _REFUSED),
        ],
        _FCNTL[column]: _argument_is_one_of(1, _FCNTL_COMMANDS),
        _PRCTL[column]: _argument_is_one_of(0, _PRCTL_OPTIONS),
        _PRLIMIT64[column]: [  # only to read its own
            _load_argument(0),
            (_EQUAL, 0, "", _REFUSED),
            _load_argument(2),
            (_EQUAL, 0, "", _REFUSED),
            _load_argument(2, high=True),
            (_EQUAL, 0, _ALLOWED, _REFUSED),
        ],
        _TGKILL[column]: _argument_is_one_of(0, (pid,)),  # abort() in its own process
    }
    steps: list[_Step] = [
        (_LOAD, _ARCHITECTURE_AT, "", ""),
        (_EQUAL, _ARCHITECTURES[machine], "", "killed"),
        (_LOAD, _NUMBER_AT, "", ""),
        *((_EQUAL, number, _ALLOWED, "") for number in plain if number is not None),
        *((_EQUAL, number, f"call {number}", "") for number in guarded),
    ]
    labels = {}
    steps.append((_RETURN, _ENOSYS, "", ""))
    for number, check in guarded.items():
        labels[f"call {number}"] = len(steps)
        steps += check
    for label, result in ((_ALLOWED, _ALLOW), (_REFUSED, _ENOSYS), ("killed", _KILL_PROCESS)):
        labels[label] = len(steps)
        steps.append((_RETURN, result, "", ""))
    return b"".join(_encode(at, step, labels) for at, step in enumerate(steps))


def _load_argument(number: int, *, high: bool = False) -> _Step:
    return (_LOAD, _ARGUMENTS_AT + 8 * number + (4 if high else 0), "", "")


def _argument_is_one_of(number: int, values: Sequence[int]) -> list[_Step]:
    return list(
        chain(
            [_load_argument(number)],
            ((_EQUAL, value, _ALLOWED, "") for value in values[:-1]),
            [(_EQUAL, values[-1], _ALLOWED, _REFUSED)],
        )
    )


def _encode(at: int, step: _Step, labels: Mapping[str, int]) -> bytes:
    code, operand, holds, fails = step
    return struct.pack(
        "=HBBI",
        code,
        labels[holds] - at - 1 if holds else 0,
        labels[fails] - at - 1 if fails else 0,
        operand,
    )
