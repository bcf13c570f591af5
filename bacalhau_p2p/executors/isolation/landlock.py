"""Landlock: which folders a process may use. See landlock(7)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from bacalhau_p2p.executors.isolation.kernel import syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GET_VERSION = 1
_PATH_BENEATH = 1

LEAST_VERSION = 2
"""Version 1 forbids to move files between folders, which honest jobs do."""

_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = 0x2, 0x4, 0x8, 0x10, 0x20
_MAKE_DIR, _MAKE_REG, _MAKE_SYM, _REFER, _TRUNCATE = 0x80, 0x100, 0x1000, 0x2000, 0x4000
_READ = _READ_FILE | _READ_DIR
_CHANGE = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER | _TRUNCATE


def version() -> int:
    """The version that this kernel has; 0 if it has none or too old a one."""
    try:
        found = syscall(_CREATE_RULESET, None, 0, _GET_VERSION)
    except OSError:
        return 0
    return found if found >= LEAST_VERSION else 0


def restrict(version: int, *, readable: Iterable[int], writable: Iterable[int]) -> None:
    """Limit this thread for good to the folders behind these descriptors; those in `writable` can be read
    and changed, but no device, pipe or socket made in them. Where the kernel can, also forbid TCP, and
    abstract sockets and signals to other processes. Needs no new privileges to be allowed."""
    files = 0x3FFF | (0x4000 if version >= 3 else 0) | (0x8000 if version >= 5 else 0)
    attributes = struct.pack("=Q", files)
    if version >= 4:
        attributes += struct.pack("=Q", 0b11)  # bind and connect TCP
    if version >= 6:
        attributes += struct.pack("=Q", 0b11)  # abstract sockets, signals
    ruleset = syscall(_CREATE_RULESET, ctypes.create_string_buffer(attributes), len(attributes), 0)
    try:
        for folders, rights in ((readable, _READ), (writable, (_READ | _CHANGE) & files)):
            for fd in folders:
                rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, fd))
                syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
