"""Values and bytes that strangers might send."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import Any

from cbor2 import CBORSimpleValue, undefined

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), -(2**64)),
    *(0.0, -0.0, 5e-324, 1e308, -1e308, math.nan, math.inf, -math.inf),
    *(
        b"",
        b"\xff\xfe",
        b"x" * 5000,
        "",
        "\0",
        "\x1b[2J",
        "x" * 129,
        "x" * 5000,
        "é" * 200,
        "\u2028",
        "\U0010ffff",
    ),
    *([], [1], [[]], [[[[[[[[]]]]]]]], {}, {"a": 1}, {1: 1}, {b"\xff": 1}, undefined, CBORSimpleValue(7)),
    *(
        "0",
        "1e9",
        "9" * 20,
        "9" * 300,
        "0.0000001",
        "1Ei",
        "NaN",
        "-1",
        "1" * 5000 + "x",
        "/",
        "..",
        "../" * 50,
    ),
    *(
        "bafy",
        "Qm" * 23,
        "b" + "a" * 4000,
        "z" + "1" * 4000,
        "/ip4/1.2.3.4/tcp/1",
        "/dns4/xn--a/tcp/1",
        "/p2p/x",
    ),
    *(
        "http://xn--a/",
        "http://[::1",
        "http://127.0.0.1/",
        "data:,x",
        "data:application/gzip;base64,",
        "a\u202eb",
    ),
)
"""Values of every kind that CBOR and JSON can carry, and texts at the limits of what parsers expect."""


def thawed(value: Any) -> Any:
    """A copy that can be changed."""
    if isinstance(value, dict):
        return {key: thawed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [thawed(each) for each in value]
    return value


def mutated(value: Any, rng: Random, times: int) -> Any:
    """A copy in which up to `times` places hold something else, are missing, or have company."""
    changed = thawed(value)
    for _ in range(times):
        places = [path for path in _paths(changed) if path]
        if not places:
            return thawed(rng.choice(HOSTILE))
        path = rng.choice(places)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        draw = rng.random()
        if draw < 0.7:
            parent[path[-1]] = thawed(rng.choice(HOSTILE))
        elif draw < 0.8:
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[rng.choice(("evil", "Extra", "", path[-1]))] = thawed(rng.choice(HOSTILE))
        else:
            parent += [thawed(parent[path[-1]])] * rng.choice((1, 3, 200))
    return changed


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from _paths(value[index], (*path, index))


def mutated_bytes(data: bytes, rng: Random, times: int) -> bytes:
    """A copy with bits turned, and pieces cut out, repeated, swapped with noise or overwritten by sizes."""
    changed = bytearray(data)
    for _ in range(times):
        if not changed:
            return rng.randbytes(rng.randrange(64))
        start = rng.randrange(len(changed))
        end = min(len(changed), start + rng.choice((1, 1, 2, 4, 16, 64)))
        match rng.randrange(6):
            case 0:
                changed[start] ^= 1 << rng.randrange(8)
            case 1:
                del changed[start:end]
            case 2:
                changed[start:start] = changed[start:end] * rng.choice((1, 2, 50))
            case 3:
                changed[start:end] = rng.randbytes(end - start)
            case 4:
                changed[start:end] = rng.choice(
                    (b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff", b"\x80" * 12, b"\0" * 4)
                )
            case 5:
                del changed[start:]
    return bytes(changed)
