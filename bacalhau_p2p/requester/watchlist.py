"""When the bids and active executions of a job are looked at again.

Pure, as a part of the requester's machine. `supervision` decides what is to be seen there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bacalhau_p2p.components.ledger import Deadlines
from bacalhau_p2p.components.undo import Undoable, UndoableSet
from bacalhau_p2p.model.base import ExecutionID, UnixSeconds


@dataclass(slots=True)
class Watchlist(Undoable):
    """Of one job. An execution is looked at no later than something is due for it. If that is later by then,
    because its node was in contact meanwhile, it is looked at again."""

    due: Deadlines[ExecutionID] = field(default_factory=Deadlines)
    changed: set[ExecutionID] = field(default_factory=UndoableSet)
    """For which it is to be decided anew when they are due."""
    unreachable: set[ExecutionID] = field(default_factory=UndoableSet)
    """Active executions whose nodes were unreachable when they were looked at: when they are lost depends on
    other nodes."""
    absence: UnixSeconds | None = None
    """When a node of an ops job that has not taken it is given up, or before; None: to be decided anew."""

    def renew(self, name: ExecutionID) -> None:
        """Something has changed, so that this execution may be due earlier than it was."""
        self.changed.add(name)

    def renew_unreachable(self) -> None:
        """It may be that others can take over now what runs on nodes that are unreachable."""
        for name in self.unreachable:
            self.changed.add(name)

    def take_changed(self) -> list[ExecutionID]:
        """Those for which it is to be decided anew when they are due."""
        if not self.changed:
            return []
        changed, self.changed = sorted(self.changed), UndoableSet()
        return changed

    def set(self, name: ExecutionID, due: UnixSeconds, *, unreachable: bool) -> None:
        """Look at an execution by this time."""
        self.due.set(name, due)
        if unreachable:
            self.unreachable.add(name)
        else:
            self.unreachable.discard(name)

    def take_due(self, now: UnixSeconds) -> list[ExecutionID]:
        """Those to look at now. They are to be decided anew."""
        names = list[ExecutionID]()
        while (name := self.due.pop(now)) is not None:
            names.append(name)
            self.changed.add(name)
        return names

    def drop(self, name: ExecutionID) -> None:
        """This execution has ended."""
        self.due.drop(name)
        self.changed.discard(name)
        self.unreachable.discard(name)
