"""A program that only waits, for the container that holds the network of a job.

Images need not have a program that waits, and a node should not need an image of its own for it. So here is
one, of some 140 bytes, for the processors on which Docker runs mostly: it is shown to a container of the
job's own image.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping

_BASE = 0x400000
_HEADERS = 64 + 56
_X86_64 = 62
_AARCH64 = 183

_CODE: Mapping[str, tuple[int, bytes]] = {
    # mov eax, 34 (pause); syscall; jmp to the start
    "x86_64": (_X86_64, bytes.fromhex("b822000000 0f05 ebf7")),
    # mov x0, 0; mov x1, 0; mov x2, 0; mov x3, 0; mov x8, 73 (ppoll); svc 0; b to the start
    "aarch64": (
        _AARCH64,
        struct.pack(
            "<7I", 0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003, 0xD2800928, 0xD4000001, 0x17FFFFFA
        ),
    ),
}
"""The ELF number of each machine, and instructions that make one system call again and again."""


def pause_program(machine: str | None = None) -> bytes | None:
    """The program for a machine, this one by default, named as by `uname -m`; None where there is none."""
    known = _CODE.get(platform.machine() if machine is None else machine)
    if known is None:
        return None
    number, code = known
    size = _HEADERS + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    # An executable for this machine, which starts after the headers; one program header, no sections.
    header = struct.pack("<HHIQQQIHHHHHH", 2, number, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    # The whole file, readable and executable, at the address.
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return identity + header + segment + code
