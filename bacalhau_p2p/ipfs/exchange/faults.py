"""What can go wrong with one peer."""

from __future__ import annotations


class PeerFault(Exception):
    """A peer failed; another peer may still succeed. With `invalid` it sent wrong data."""

    def __init__(self, message: str, *, invalid: bool = False) -> None:
        super().__init__(message)
        self.invalid = invalid
