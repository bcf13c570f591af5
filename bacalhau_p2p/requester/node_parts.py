"""Which part each node has in a job.

Pure, as a part of the requester's machine.
"""

from __future__ import annotations

from typing import TypeVar

from bacalhau_p2p.components.undo import Undoable, UndoableDict
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester.groups import ACTIVE, GONE, SETTLED

K = TypeVar("K")

_WORKING = ACTIVE | SETTLED
_HAS_A_PART = _WORKING | {ExecutionState.BID_RECEIVED}


class NodeParts(Undoable):
    """What the nodes of one job have in it. Its `Placement` says when an execution has changed."""

    __slots__ = ("_divided", "active", "failed", "parts", "unpaid", "working")

    def __init__(self, *, divided: bool) -> None:
        self._divided = divided
        self.parts: dict[PeerID, int] = UndoableDict()
        """How many of a node's executions are bids, active or settled."""
        self.active: dict[PeerID, dict[ExecutionID, None]] = UndoableDict()
        """The active executions of each node."""
        self.unpaid: dict[PeerID, int] = UndoableDict()
        """How many of a node's executions count for the limit of its bids: all; of a job that is divided
        those that fill, and filled, no slot."""
        self.working: dict[tuple[int, PeerID], int] = UndoableDict()
        """Of a job that is divided: how many of a node's executions in a group are active or settled."""
        self.failed: dict[tuple[int, PeerID], None] = UndoableDict()
        """Of a job that is divided: the nodes on which an execution of the group failed or was lost."""

    def change(self, before: Execution | None, after: Execution, group: int | None) -> bool:
        """An execution has another state, or is new. `group` is that of the slot that it fills or filled.
        Returns whether its node has less of a part in the job than before."""
        was, state, node = None if before is None else before.state, after.state, after.node_id
        if (state in ACTIVE) != (was in ACTIVE):
            self._change_active(after.id, node, active=state in ACTIVE)
        change = (state in _HAS_A_PART) - (was in _HAS_A_PART)
        count(self.parts, node, change)
        if before is None or self._divided:
            count(self.unpaid, node, self._is_unpaid(after) - self._is_unpaid(before))
        if self._divided and group is not None:
            count(self.working, (group, node), (state in _WORKING) - (was in _WORKING))
            if state in GONE:
                self.failed[group, node] = None
        return change < 0

    def _change_active(self, name: ExecutionID, node: PeerID, *, active: bool) -> None:
        theirs = self.active.get(node)
        if theirs is None:
            theirs = self.active[node] = UndoableDict()
        include(theirs, name, active)
        if not theirs:
            del self.active[node]

    def _is_unpaid(self, execution: Execution | None) -> bool:
        if execution is None:
            return False
        return not self._divided or execution.slot is None or execution.drained


def include(members: dict[K, None], key: K, included: bool) -> None:
    """Add or remove a key, unless it is as it should be."""
    if included != (key in members):
        if included:
            members[key] = None
        else:
            del members[key]


def count(counts: dict[K, int], key: K, change: int) -> None:
    """Change a count. What is not there is not counted."""
    if change:
        number = counts.get(key, 0) + change
        if number:
            counts[key] = number
        else:
            del counts[key]
