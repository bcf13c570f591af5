"""Supervises the executions of each job: heartbeats, nodes that stop responding, bids that expire.

Pure, as a part of the requester's machine. `docs/states.md` has the rules in prose.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID, UnixSeconds
from bacalhau_p2p.model.execution import RUN_HAS_BEGUN, Execution
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.state import ComputeState, ExecutionState, UnknownState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester import execution_transitions as executions
from bacalhau_p2p.requester import job_transitions as jobs
from bacalhau_p2p.requester.groups import ACTIVE
from bacalhau_p2p.requester.history import MAX_PREPARATION_EVENTS, fetching_text
from bacalhau_p2p.requester.invitations import Invitations
from bacalhau_p2p.requester.ledger import Ledger
from bacalhau_p2p.requester.liveness import Liveness
from bacalhau_p2p.requester.ops_nodes import note_absence
from bacalhau_p2p.requester.record import JobEntry

S = ExecutionState

RECONCILE_INTERVAL = 60.0
"""Seconds without a change of an execution after which it is reconciled with its node."""
MAX_STRAY_CANCELS = 10
"""Unknown executions of one heartbeat that are cancelled; the next heartbeat names the others again."""
MAX_STEPS_TOLD = 20
"""Times that a node may say of one execution that it prepares it, or that its run has begun: each is stored.
A node that restarts says it again."""
LOST_CONTACT = "lost contact with node"
"""The message of an execution that is lost begins with this."""

_PROGRESS = {
    ComputeState.PREPARING: (EventKind.PREPARING, "preparing"),
    ComputeState.RUNNING: (EventKind.RUNNING, RUN_HAS_BEGUN),
}
"""What the history tells while a node works on an execution, and the execution's message."""


class Supervision:
    """Decides which executions are lost, and reconciles those that have not changed for long."""

    def __init__(self, ledger: Ledger, liveness: Liveness, invitations: Invitations) -> None:
        self._ledger = ledger
        self._liveness = liveness
        self._invitations = invitations

    def check(self, entry: JobEntry, now: UnixSeconds) -> None:
        """End executions that are lost and bids that have expired, and reconcile executions that are due."""
        names = entry.watchlist.take_due(now)
        for name in names:
            execution = entry.executions[name]
            if execution.state in ACTIVE:
                self._check_node(entry, execution, now)
            elif execution.state == S.BID_RECEIVED and now >= entry.bids[name].expires:
                executions.move(self._ledger, entry, execution, executions.BidExpired(), now)
        silent = [name for name in names if now >= _reconcile_at(entry, entry.executions[name])]
        self.reconcile(entry, silent, now)

    def _check_node(self, entry: JobEntry, execution: Execution, now: UnixSeconds) -> None:
        name = execution.node_id[-8:]
        if now >= self._liveness.lost_at(entry, execution):
            lost = executions.NodeLost(message=f"{LOST_CONTACT} {name}")
            executions.move(self._ledger, entry, execution, lost, now)
            self._invitations.gone(entry, execution, now, silent=True)
        elif now >= self._liveness.unreachable_at(entry, execution) and not entry.is_open:
            why = self._liveness.reason_to_wait(execution, ops=entry.ops)
            message = f"waiting for node {name}, which is unreachable: {why}"
            jobs.move(self._ledger, entry, jobs.NodeAwaited(message=message), now)

    def reconcile(self, entry: JobEntry, names: Iterable[ExecutionID], now: UnixSeconds) -> None:
        """Tell nodes how the requester sees those of these executions that are active."""
        for execution in map(entry.executions.__getitem__, names):
            if execution.state in ACTIVE:
                entry.reconciled_at[execution.id] = now
                view = say.ExecutionView(
                    job_id=execution.job_id,
                    execution_id=execution.id,
                    state=execution.state,
                    partition=entry.partition_of(execution),
                )
                message = say.Reconcile(executions=(view,))
                self._ledger.actions.append(ev.Send(execution.node_id, message, now + RECONCILE_INTERVAL))

    def next_check(self, entry: JobEntry, now: UnixSeconds) -> UnixSeconds:
        """When to `check` this job again; infinity if it has no bid and no active execution."""
        for name in entry.watchlist.take_changed():
            execution = entry.executions[name]
            if execution.state == S.BID_RECEIVED:
                entry.watchlist.set(name, entry.bids[name].expires, unreachable=False)
            elif execution.state in ACTIVE:
                silent = self._liveness.unreachable_at(entry, execution)
                unreachable = silent <= now
                if unreachable:
                    silent = self._liveness.lost_at(entry, execution)
                due = min(silent, _reconcile_at(entry, execution))
                entry.watchlist.set(name, due, unreachable=unreachable)
        first = entry.watchlist.due.next()
        return inf if first is None else first

    def connection_changed(self, entry: JobEntry, peer: PeerID) -> None:
        """A peer was connected, or its connection broke: what it runs may be lost sooner, and it may take
        over what another node runs."""
        for name in entry.placement.nodes.active.get(peer, ()):
            entry.watchlist.renew(name)
        entry.watchlist.renew_unreachable()
        note_absence(entry, peer, self._liveness)

    def heartbeat(self, author: PeerID, message: say.Heartbeat, now: UnixSeconds) -> None:
        """Take in a heartbeat: the node is alive, and so are these executions on it."""
        if self._liveness.disconnected_at.pop(author, None) is not None:
            for entry in self._ledger.jobs.values():
                self.connection_changed(entry, author)
        if not message.executions:  # a node without executions sends none
            self._ledger.ignore_unknown(message, "execution")
        answers, heard = MAX_STRAY_CANCELS, dict[JobID, JobEntry]()
        for line in {line.execution_id: line for line in message.executions}.values():
            known = self._ledger.of_execution(line.execution_id)
            if known is None:
                self._ledger.ignore_unknown(message, "execution")
                answers -= 1
                if answers < 0:
                    continue
                self._ledger.send_stray_cancel(
                    author, JobID("unknown"), line.execution_id, "unknown at the requester", now
                )
                continue
            entry, execution = known
            if execution.node_id != author:
                self._ledger.ignore(message, "from another node")
            elif execution.state in ACTIVE:
                self._note_alive(entry, execution, line, now)
                heard[entry.job.id] = entry
            else:
                self._ledger.ignore(message, f"in {execution.state}")
                if execution.state not in (S.BID_RECEIVED, S.COMPLETED):
                    reason = f"already {execution.state} at the requester"
                    self._ledger.send_stray_cancel(author, entry.job.id, execution.id, reason, now)
        for entry in heard.values():
            if entry.job.message and not entry.is_open and not self._awaits_any(entry, now):
                jobs.move(self._ledger, entry, jobs.NodeHeard(), now)

    def _awaits_any(self, entry: JobEntry, now: UnixSeconds) -> bool:
        """Whether a node of the job is still unreachable."""
        awaited = map(entry.executions.__getitem__, entry.watchlist.unreachable)
        return any(self._liveness.unreachable_at(entry, execution) <= now for execution in awaited)

    def _note_alive(
        self, entry: JobEntry, execution: Execution, line: say.ExecutionProgress, now: UnixSeconds
    ) -> None:
        entry.note_contact(execution.id, now)
        if execution.state != S.BID_ACCEPTED or isinstance(line.state, UnknownState):
            return
        kind, note = _PROGRESS.get(line.state, (None, ""))
        told = entry.steps_told.get(execution.id, 0)
        if kind is not None and execution.message != note and told < MAX_STEPS_TOLD:
            entry.steps_told[execution.id] = told + 1
            progress = executions.ProgressReported(message=note, doing=kind)
            executions.move(self._ledger, entry, execution, progress, now)
        if (line.inputs or line.message) and line.state is ComputeState.PREPARING:
            self._tell_preparation(entry, execution, line, now)

    def _tell_preparation(
        self, entry: JobEntry, execution: Execution, line: say.ExecutionProgress, now: UnixSeconds
    ) -> None:
        """The history tells it only: nothing depends on it."""
        told = entry.preparation_told.get(execution.id, 0)
        if told < MAX_PREPARATION_EVENTS:
            entry.preparation_told[execution.id] = told + 1
            targets = [each.target for each in entry.job.spec.task.input_sources]
            message = fetching_text(line.inputs, targets) if line.inputs else line.message
            executions.tell(self._ledger, entry, execution, EventKind.PREPARING, message, now)


def _reconcile_at(entry: JobEntry, execution: Execution) -> UnixSeconds:
    """When the execution has not changed for so long that a message about it may have expired."""
    return max(execution.modified, entry.reconciled_at.get(execution.id, 0.0)) + RECONCILE_INTERVAL
