"""A WebAssembly module that is small, valid, and takes a compiler very long and much memory."""

from __future__ import annotations

import random

_LOCALS = 2000
_I64 = b"\x7e"


def slow_module(diamonds: int, seed: int = 1) -> bytes:
    """A function of many branches over many live locals. With 20,000 branches (0.6 MB), wasmtime takes 16 s
    and 1.3 GB."""
    draw = random.Random(seed)
    branches = []
    for number in range(diamonds):
        a, b, c = (_leb(draw.randrange(_LOCALS)) for _ in range(3))
        # if (a & 1) then c = a + b else c = a ^ b
        then = b"\x20" + a + b"\x20" + b + b"\x7c\x21" + c
        otherwise = b"\x20" + a + b"\x20" + b + b"\x85\x21" + c
        branches.append(b"\x20" + a + b"\xa7\x04\x40" + then + b"\x05" + otherwise + b"\x0b")
        if number % 50 == 0:
            branches.append(b"\x10\x01")  # a call, over which all locals live
    stores = b"".join(
        b"\x41" + _leb(8 * (n % 1000) & 0x3F) + b"\x20" + _leb(n) + b"\x37\x03\x00" for n in range(_LOCALS)
    )
    body = b"\x03\x40" + b"".join(branches) + b"\x20\x00\xa7\x0d\x00\x0b" + stores
    start = _leb(1) + _leb(_LOCALS) + _I64 + body + b"\x0b"
    code = _leb(2) + _leb(len(start)) + start + b"\x02\x00\x0b"
    return b"\0asm\1\0\0\0" + b"".join(
        _section(number, content)
        for number, content in (
            (1, b"\x01\x60\x00\x00"),
            (3, b"\x02\x00\x00"),
            (5, b"\x01\x00\x01"),
            (7, b"\x01\x06_start\x00\x00"),
            (10, code),
        )
    )


def _section(number: int, content: bytes) -> bytes:
    return bytes([number]) + _leb(len(content)) + content


def _leb(value: int) -> bytes:
    """Unsigned LEB128."""
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])
