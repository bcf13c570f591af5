"""How much of a job's inputs a node has, as its history says it to people, and as programs read it there."""

from __future__ import annotations

import re

from bacalhau_p2p.model.quantities import format_bytes, parse_bytes

FETCHING = "fetching inputs: "
"""What such a message begins with."""
_BYTES = r"[0-9.]+ (?:bytes?|[kMGTPE]B)"
_AMOUNTS = re.compile(f"{FETCHING}({_BYTES}) of ({_BYTES})(?: .*)?", re.ASCII | re.DOTALL)
_LONGEST = 200
"""Characters of a message that are looked at."""


def fetched_text(done: int, total: int | None) -> str:
    """Such as `5 MB of 20 MB`."""
    return format_bytes(done) if total is None else f"{format_bytes(done)} of {format_bytes(total)}"


def fetched_of(message: str) -> tuple[int, int] | None:
    """About the bytes of all inputs that are there, of how many; None if the message does not say it."""
    match = _AMOUNTS.match(message[:_LONGEST])
    try:
        return (_bytes(match[1]), _bytes(match[2])) if match is not None else None
    except ValueError:
        return None


def _bytes(text: str) -> int:
    return parse_bytes(re.sub(" bytes?", "", text))
