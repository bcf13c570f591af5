"""Seeds that nobody has chosen."""

from __future__ import annotations

import os
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random

ROOT = Path(__file__).parents[2]


def fresh_seed(purpose: str) -> int:
    """In CI it is drawn from the code that is tested: the same code meets the same worlds each time, and
    every change meets others. Elsewhere it is random."""
    if os.environ.get("CI"):
        return Random(f"{purpose}:{_digest_of_the_code()}").getrandbits(32)
    return random_seed()


def random_seed() -> int:
    """A seed from the operating system's randomness."""
    return int.from_bytes(os.urandom(4))


@cache
def _digest_of_the_code() -> str:
    digest = sha256()
    for room in ("bacalhau_p2p", "tests"):
        for path in sorted((ROOT / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
