"""Seeded randomness, one stream for each purpose."""

from __future__ import annotations

from random import Random


def rng_for(seed: int, purpose: str) -> Random:
    """The same numbers for the same seed and purpose, always and everywhere."""
    return Random(f"{purpose}:{seed}")
