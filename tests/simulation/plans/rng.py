"""Seeded randomness, one stream for each purpose, and fresh seeds."""

from __future__ import annotations

import os
from random import Random


def rng_for(seed: int, purpose: str) -> Random:
    """The same numbers for the same seed and purpose, always and everywhere."""
    return Random(f"{purpose}:{seed}")


def fresh_seed() -> int:
    """A seed from the operating system's randomness."""
    return int.from_bytes(os.urandom(4))
