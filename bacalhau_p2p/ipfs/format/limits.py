"""How much content may be: checked before it is fetched and again on every step through it.

A DAG is cheap to make and dear to follow: five blocks of 13 kB can expand to 13 GB, and a chain
of blocks can nest without end. Whoever walks one counts as it goes.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_BLOCK = 2 * 1024 * 1024
"""Bytes of one block, as every IPFS implementation has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one DAG may be at most."""

    bytes: int = 64 * 1024**3
    """Bytes of all files as written out, repeated ones counted each time."""
    blocks: int = 2_000_000
    entries: int = 1_000_000
    """Files, folders and symlinks as written out, repeated ones counted each time."""
    folder_depth: int = 64
    file_depth: int = 8
    """Levels of blocks below the root of one file: 8 hold more than any disk at 174 links a block."""
    name: int = 255
    """Bytes of one name in UTF-8: what file systems take."""
    path: int = 4096
    """Bytes of one path in UTF-8, from the root, slashes included."""


DEFAULT_LIMITS = Limits()
