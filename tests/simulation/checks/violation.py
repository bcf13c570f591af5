"""A promise that was broken."""

from __future__ import annotations


class Violation(Exception):
    """`promise` is the invariant's short name, `what` how it was broken."""

    def __init__(self, promise: str, what: str = "") -> None:
        super().__init__(f"{promise}: {what}" if what else promise)
        self.promise = promise
        self.what = what


def require(holds: bool, promise: str, what: str) -> None:
    """Raises Violation unless it holds."""
    if not holds:
        raise Violation(promise, what)
