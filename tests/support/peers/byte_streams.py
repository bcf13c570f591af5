"""Byte streams split into reads."""

from __future__ import annotations

from itertools import pairwise


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data, split at these places (modulo its length)."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
