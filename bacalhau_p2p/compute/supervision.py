"""What is due for the executions of a compute node: heartbeats, time-outs, and requesters that are gone.

Pure, as a part of the compute machine. `docs/states.md` has the rules in prose.
"""

from __future__ import annotations

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.ledger import RETRY_FAULTY_DEADLINE
from bacalhau_p2p.compute import events as ev
from bacalhau_p2p.compute import transitions
from bacalhau_p2p.compute.ledger import HOLDS_ROOM, WORKING, Ledger
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import ExecutionID, PeerID, UnixSeconds
from bacalhau_p2p.model.node import NodeLoad
from bacalhau_p2p.model.state import ComputeState

S = ComputeState


class Supervision:
    """Ends what has lasted too long and what nobody waits for, and tells requesters of what goes on."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def next_deadline(self) -> UnixSeconds | None:
        """When to `check` next."""
        due = self._ledger.expiries.next()
        for other in (self._ledger.heartbeat_due, self._ledger.presence.next_check()):
            if other is not None and (due is None or other < due):
                due = other
        return due

    def check(self, now: UnixSeconds) -> None:
        """Do what is due by now."""
        for requester in self._ledger.presence.gone(now):
            with self._ledger.isolated(f"runs for {requester}"):
                self._stop_runs_for(requester, now)
        while (execution_id := self._ledger.expiries.pop(now)) is not None:
            with self._ledger.isolated(f"execution {execution_id}"):
                self._expire(execution_id, now)
            if execution_id in self._ledger.executions and execution_id not in self._ledger.expiries:
                self._ledger.expiries.set(execution_id, now + RETRY_FAULTY_DEADLINE)
        if self._ledger.heartbeat_due is not None and self._ledger.heartbeat_due <= now:
            self._ledger.heartbeat_due = now + transitions.HEARTBEAT_INTERVAL
            with self._ledger.isolated("heartbeats"):
                self._send_heartbeats(now)

    def tell_preparation(
        self, execution: ComputeExecution, told: ev.PreparationTold, now: UnixSeconds
    ) -> None:
        """Tell the requester of an execution how its preparation gets on, between two heartbeats."""
        line = say.ExecutionProgress(
            execution_id=execution.id, state=execution.state, message=told.doing, inputs=told.inputs
        )
        self._ledger.actions.append(ev.Send(execution.requester_id, say.Heartbeat(executions=(line,)), now))

    def _stop_runs_for(self, requester: PeerID, now: UnixSeconds) -> None:
        """Nobody waits for what is prepared or run. Results that are proposed are kept."""
        silence = self._ledger.presence.gone_after
        gone = transitions.RequesterGone(f"no message from its requester for {silence:g} s")
        runs = [
            execution
            for execution in self._ledger.executions.values()
            if execution.requester_id == requester and execution.state in HOLDS_ROOM
        ]
        for execution in runs:
            transitions.move(self._ledger, execution, gone, now)
        if runs:
            ids = tuple(execution.id for execution in runs)
            self._ledger.actions.append(ev.ReportGone(requester, silence, ids))

    def _expire(self, execution_id: ExecutionID, now: UnixSeconds) -> None:
        execution = self._ledger.executions[execution_id]
        if execution.state.terminal:
            self._ledger.forget(execution_id)
        else:
            self._overdue(execution, now)

    def _overdue(self, execution: ComputeExecution, now: UnixSeconds) -> None:
        lapses = execution.state is S.BID and self._ledger.capacity.holds(execution.id)
        event = transitions.ReservationEnded() if lapses else transitions.overdue(execution)
        transitions.move(self._ledger, execution, event, now)

    def _send_heartbeats(self, now: UnixSeconds) -> None:
        """Send each requester one message with all its executions on this node."""
        lines: dict[PeerID, list[say.ExecutionProgress]] = {}
        for execution in self._ledger.executions.values():
            if execution.state in WORKING:
                line = say.ExecutionProgress(execution_id=execution.id, state=execution.state)
                lines.setdefault(execution.requester_id, []).append(line)
        load = NodeLoad(
            available_capacity=self._ledger.capacity.available, running_executions=len(self._ledger.working)
        )
        for requester, progress in lines.items():
            heartbeat = say.Heartbeat(executions=tuple(progress), load=load)
            self._ledger.actions.append(ev.Send(requester, heartbeat, now))
        self._ledger.heartbeat_due = now + transitions.HEARTBEAT_INTERVAL if lines else None
