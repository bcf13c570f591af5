"""Which nodes did not answer when they were asked directly, so that no job waits for them again.

Pure, as a part of the requester's machine. Anybody may connect, say that it could run jobs, and be silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import NamedTuple

from bacalhau_p2p.components.undo import Undoable, UndoableDict
from bacalhau_p2p.model.base import PeerID, UnixSeconds

DOUBTED_FOR = 10.0
LONGEST_DOUBT = 600.0
"""Seconds for which a node is not relied on after it was silent the first time, and at most; each time twice
as long as the last, until it answers."""
MAX_DOUBTED = 1_000
"""Nodes that are remembered; those that were silent longest ago are forgotten first."""


class _Doubt(NamedTuple):
    until: UnixSeconds
    lasts: float


class Doubts(Undoable):
    """What one requester doubts about nodes."""

    def __init__(self) -> None:
        self._doubts: dict[PeerID, _Doubt] = UndoableDict()

    def __len__(self) -> int:
        return len(self._doubts)

    def note(self, nodes: Iterable[PeerID], now: UnixSeconds) -> None:
        """These nodes have not answered in time."""
        for node in sorted(nodes):
            before = self._doubts.pop(node, None)
            lasts = DOUBTED_FOR if before is None else min(2 * before.lasts, LONGEST_DOUBT)
            self._doubts[node] = _Doubt(now + lasts, lasts)
            if len(self._doubts) > MAX_DOUBTED:
                del self._doubts[next(iter(self._doubts))]

    def heard(self, node: PeerID) -> None:
        """This node has answered."""
        self._doubts.pop(node, None)

    def among(self, nodes: Set[PeerID], now: UnixSeconds) -> set[PeerID]:
        """Those of these nodes that are not to be relied on now."""
        return {node for node, doubt in self._doubts.items() if now < doubt.until and node in nodes}
