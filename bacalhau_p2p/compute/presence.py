"""When the requesters of a node's runs were heard of last: runs for nobody are stopped.

Pure, as a part of the compute machine. A requester asks about each of its executions every minute, so it is
never silent for long while it is there.
"""

from __future__ import annotations

from collections.abc import Iterator

from bacalhau_p2p.components.ledger import Deadlines
from bacalhau_p2p.components.undo import UndoableDict
from bacalhau_p2p.model.base import PeerID, UnixSeconds

GONE_AFTER = 3600.0
"""Seconds without a message from a requester after which it counts as gone: more than a restart or a broken
connection takes."""


class Presence:
    """Only requesters are watched for which the node prepares or runs something."""

    def __init__(self, gone_after: float) -> None:
        """`gone_after`: seconds of silence after which a requester is gone; 0: never."""
        self.gone_after = gone_after
        self._heard: dict[PeerID, UnixSeconds] = UndoableDict()
        self._checks: Deadlines[PeerID] = Deadlines()

    def watch(self, requester: PeerID, now: UnixSeconds) -> None:
        """Something is prepared or run for this requester from now on."""
        if self.gone_after and requester not in self._heard:
            self._heard[requester] = now
            self._checks.set(requester, now + self.gone_after)

    def heard(self, requester: PeerID, now: UnixSeconds) -> None:
        """A message of this requester arrived."""
        if requester in self._heard:
            self._heard[requester] = now

    def next_check(self) -> UnixSeconds | None:
        """When to call `gone`."""
        return self._checks.next()

    def gone(self, now: UnixSeconds) -> Iterator[PeerID]:
        """The requesters that have been silent for too long. They are watched no more."""
        while (requester := self._checks.pop(now)) is not None:
            silent_until = self._heard[requester] + self.gone_after
            if silent_until > now:
                self._checks.set(requester, silent_until)
            else:
                del self._heard[requester]
                yield requester
