"""Watches a world: hands what happens to the checks, and counts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from bacalhau_p2p.bprotocol.codec import Envelope
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.components.commit_plan import Commit, record_key
from bacalhau_p2p.components.protocol import Machine
from bacalhau_p2p.compute.machine import ComputeMachine
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester.machine import RequesterMachine
from tests.simulation.checks.executions import ExecutionChecks
from tests.simulation.checks.histories import HistoryChecks
from tests.simulation.checks.jobs import JobChecks
from tests.simulation.checks.messages import MessageChecks
from tests.simulation.checks.violation import Violation, require
from tests.simulation.nodes.node import SimulatedNode
from tests.simulation.nodes.store import SimulatedStore
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import JobPlan


class Watch:
    """The `Observer` of all nodes. Raises Violation."""

    def __init__(
        self, timeline: Timeline, nodes: Mapping[PeerID, SimulatedNode], jobs: Mapping[str, JobPlan]
    ) -> None:
        """`jobs` are all jobs of the world, by name."""
        self._nodes = nodes
        self.messages = MessageChecks(timeline, nodes)
        self.jobs = JobChecks(timeline, nodes, jobs, self.messages.last_word)
        self.executions = ExecutionChecks(nodes, jobs, timeline.disturbed)
        self.histories = HistoryChecks(timeline.disturbed)
        self.sent_kinds: Counter[str] = Counter()
        """How many messages of each kind were sent, without repeats."""
        self.states: Counter[str] = Counter()
        """How often each state was committed."""
        self.lost_runs = 0
        """Executions that were lost, and not handed back by their nodes."""
        self._committed: dict[tuple[SimulatedStore, Hashable], Any] = {}
        """The last version of each record."""
        self._answers: dict[JobID, JobPlan] = {}

    # --- as Observer ------------------------------------------------------------------------------

    def handling(self, store: SimulatedStore, arrival: Arrival) -> None:
        self.messages.handling(store, arrival)

    def handled(self, peer: PeerID, store: SimulatedStore, arrival: Arrival, actions: Sequence[Any]) -> None:
        self.messages.handled(peer, store, arrival, actions)

    def ticked(self, machine: Machine, now: float) -> None:
        due = machine.next_deadline()
        require(due is None or due > now, "clock", f"the next deadline {due} is not after {now}")
        if isinstance(machine, ComputeMachine):
            self.executions.check_machine(machine)
        elif isinstance(machine, RequesterMachine):
            self.jobs.check_machine(machine, now)

    def committed(self, peer: PeerID, store: SimulatedStore, commit: Commit) -> None:
        _check_pruned(store, commit)
        node, jobs = self._nodes[peer], set[JobID]()
        for record in commit.records:
            self._check_terminal(store, record)
            if isinstance(record, Job):
                self.states[f"job {record.state}"] += 1
                jobs.add(record.id)
            elif isinstance(record, Execution):
                self.states[f"execution {record.state}"] += 1
                if record.state is ExecutionState.LOST and not record.drained:
                    self.lost_runs += 1
                self.jobs.execution_committed(node, record)
                jobs.add(record.job_id)
            elif isinstance(record, ComputeExecution):
                self.states[f"compute {record.state}"] += 1
                self.executions.check_owed(node, record)
        self.messages.committed(store, commit)
        self.executions.committed(commit)
        for job_id in sorted(jobs):
            job = store.records.get(job_id)
            if isinstance(job, Job):
                self.jobs.check_job(node, job)
        for job_id in sorted(jobs | {event.job_id for event in commit.history}):
            self.histories.check(store, job_id)

    def refused(self, store: SimulatedStore, record: Any) -> None:
        self.messages.refused(store, record)

    def dispatching(self, store: SimulatedStore, envelope: Envelope) -> None:
        self.messages.dispatching(store, envelope)

    def sent(self, kind: str) -> None:
        self.sent_kinds[kind] += 1

    def acknowledged(self, peer: PeerID, author: PeerID, ids: Iterable[bytes]) -> None:
        self.messages.acknowledged(peer, author, ids)

    def preparing(self, execution: ComputeExecution) -> None:
        self.executions.preparing(execution)

    def running(self, peer: PeerID, execution: ComputeExecution) -> None:
        self.executions.running(peer, execution)

    def publishing(self, execution: ComputeExecution) -> None:
        self.executions.publishing(execution)

    # --- for the world ----------------------------------------------------------------------------

    def answered(self, plan: JobPlan, job_id: JobID) -> None:
        """A user was given the id of a job."""
        self._answers[job_id] = plan

    def stopped(self, node: SimulatedNode, *, power: bool) -> None:
        """A node was stopped, or with `power` lost power. Its disk is as its next start finds it."""
        self.messages.stopped(node)
        if power:
            self._forget_undone(node)
        for job_id, job in self._answers.items():
            if job.requester == node.peer:
                kept = node.disk.requester_store.known(job_id) is not None
                require(kept, "submit", f"{job_id} was answered, and is not in the store after a crash")
        self.executions.stopped(node, power=power)

    def _check_terminal(self, store: SimulatedStore, record: Any) -> None:
        before = self._committed.get((store, record_key(record)))
        self._committed[store, record_key(record)] = record
        if before is not None and before.state.terminal and record.state != before.state:
            raise Violation("terminal", f"{before.id} was {before.state} and is {record.state}")

    def _forget_undone(self, node: SimulatedNode) -> None:
        for store, key in [each for each in self._committed if each[0] in node.disk.stores]:
            if key in store.records:
                self._committed[store, key] = store.records[key]
            else:
                del self._committed[store, key]


def _check_pruned(store: SimulatedStore, commit: Commit) -> None:
    """A job that a requester has deleted is over for good: nothing about it becomes durable."""
    for record in commit.records:
        key = record_key(record)
        require(key not in store.pruned, "pruned", f"{key} was deleted, and is stored again")
    for message in commit.outbox:
        about = getattr(message.envelope.message, "job_id", None)
        kind = message.envelope.message.kind
        require(about not in store.pruned, "pruned", f"a durable {kind} about {about}, which was deleted")
