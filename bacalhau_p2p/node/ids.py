"""Random ids for jobs and executions."""

from __future__ import annotations

import random
import uuid


def random_uuid(rng: random.Random) -> str:
    """A version 4 UUID as text."""
    return str(uuid.UUID(bytes=rng.randbytes(16), version=4))
