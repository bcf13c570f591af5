"""Checks on jobs: their slots and attempts, and what it means that one is completed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import inf

from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.state import ExecutionState as S
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester import execution_transitions as executions
from bacalhau_p2p.requester.groups import ACTIVE, MAX_ATTEMPTS
from bacalhau_p2p.requester.liveness import LOST_AFTER_SURVIVING
from bacalhau_p2p.requester.machine import RequesterMachine
from bacalhau_p2p.requester.ops_nodes import GATHER_FOR
from bacalhau_p2p.requester.record import JobEntry
from bacalhau_p2p.requester.supervision import LOST_CONTACT
from tests.simulation.checks.violation import require
from tests.simulation.nodes.node import SimulatedNode
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import JobPlan
from tests.support.machines.derived import drifted

_CHOSEN, _NOT_CHOSEN = executions.BidChosen(slot=0).message, executions.BidNotChosen().message
SLOW = 1.0
"""Seconds between an event and its commit, at most, as far as it matters here."""


class JobChecks:
    def __init__(
        self,
        timeline: Timeline,
        nodes: Mapping[PeerID, SimulatedNode],
        jobs: Mapping[str, JobPlan],
        last_word: Callable[[PeerID, ExecutionID], float],
    ) -> None:
        self._timeline = timeline
        self._nodes = nodes
        self._jobs = jobs
        self._last_word = last_word
        self._executions: dict[tuple[PeerID, JobID], dict[ExecutionID, Execution]] = {}
        """As their requester has committed them."""
        self._began: dict[JobID, float] = {}
        """When each ops job was first seen with nodes."""
        self.ended: dict[JobID, float] = {}
        """When each job ended."""

    # --- in the machine, after each tick ----------------------------------------------------------

    def check_machine(self, machine: RequesterMachine, now: float) -> None:
        wrong = drifted(machine, now, self._timeline.disturbed)
        require(not wrong, "derived", "; ".join(wrong))
        for entry in machine.jobs.values():
            _check_who_comes_last(machine, entry, now)
            filled = [slot.execution for slot in entry.slots if slot.execution is not None]
            require(len(set(filled)) == len(filled), "slots", f"{entry.job.id}: one execution in two slots")
            if entry.job.state.terminal:
                continue
            active = {e.id for e in entry.executions.values() if e.state in ACTIVE}
            require(active <= set(filled), "slots", f"{entry.job.id}: {active - set(filled)} fill no slot")
            for name in filled:
                if entry.executions[name].state in (S.FAILED, S.LOST) and not entry.ops:
                    _check_twin(entry, entry.executions[name])
            if entry.open_slots:
                planned = entry.round.ends is not None or entry.round.next_at is not None
                require(planned, "slots", f"{entry.job.id}: an open slot, and no round is planned")

    # --- in the store, after each commit ----------------------------------------------------------

    def execution_committed(self, node: SimulatedNode, execution: Execution) -> None:
        self._executions.setdefault((node.peer, execution.job_id), {})[execution.id] = execution
        # A stranger may bid under an id that the requester has forgotten, and bids of others say anything.
        honest = execution.node_id in self._nodes and execution.job_id not in self._timeline.disturbed
        if honest and execution.state == S.LOST and LOST_CONTACT in execution.message:
            job = node.disk.requester_store.known(execution.job_id)
            silent = self._timeline.now - self._last_word(node.peer, execution.id)
            require(
                silent > LOST_AFTER_SURVIVING - 0.1 or not self._jobs[job.spec.name].survives,
                "patience",
                f"{execution.id} outlives its node, and was given up {silent:.1f} s after its last word",
            )

    def check_job(self, node: SimulatedNode, job: Job) -> None:
        executions = self._executions.get((node.peer, job.id), {})
        if job.id in self._timeline.disturbed:
            if job.state.terminal:
                self.ended.setdefault(job.id, self._timeline.now)
            return
        filling = [e for e in executions.values() if e.state in ACTIVE or e.state == S.COMPLETED]
        most = len(job.nodes) if job.spec.is_ops else job.spec.slots
        require(len(filling) <= most, "count", f"{job.id}: {len(filling)} executions at one time")
        shares = [(e.node_id, _group(job, e)) for e in filling]
        require(len(set(shares)) == len(shares), "one per node", f"{job.id}: one node does the same twice")
        if job.spec.is_ops:
            _check_once_a_node(job, executions.values())
            self._check_nobody_joins_late(job)
        else:
            _check_attempts(job, executions.values())
        if job.state.terminal:
            self.ended.setdefault(job.id, self._timeline.now)
            active = [e.id for e in filling if e.state in ACTIVE]
            require(not active, "over", f"{job.id} is {job.state} with active {active}")
        if job.state == JobState.COMPLETED:
            self._check_completed(job, executions)

    def _check_nobody_joins_late(self, job: Job) -> None:
        """A node of an ops job was there when it was submitted, if any was."""
        if job.nodes:
            healed = self._timeline.healed  # all nodes start then, before their time
            began = self._began.setdefault(job.id, inf if healed else self._timeline.now)
            gathered = began - self._timeline.start + GATHER_FOR + SLOW
            late = [
                peer for peer in job.nodes if peer in self._nodes and self._nodes[peer].plan.joins > gathered
            ]
            require(not late, "once a node", f"{job.id}: {late} joined when it was submitted already")

    def _check_completed(self, job: Job, executions: dict[ExecutionID, Execution]) -> None:
        completed = [e for e in executions.values() if e.state == S.COMPLETED]
        require(bool(completed), "result", f"{job.id} is Completed without a result")
        done, wanted = {_group(job, e) for e in completed}, _groups(job)
        require(done == wanted, "whole", f"{job.id} is Completed, and only {sorted(done)} have results")
        for execution in completed:
            proposal, published = execution.proposal, execution.published
            require(
                proposal is not None and published is not None and published.cid == proposal.result_cid,
                "result",
                f"{execution.id}: published is not what was verified",
            )
            assert proposal is not None
            engine = self._nodes[execution.node_id].engine
            truth = engine.truth.get(execution.id)
            require(truth == proposal.result_cid, "result", f"{execution.id} gave {truth}")
            assert execution.slot is not None
            mine, did = job.spec.partition_of(execution.slot).index, engine.partitions[execution.id]
            require(mine == did, "partition", f"{execution.id} did partition {did} in place of {mine}")
            delivered = engine.contents[proposal.result_cid]
            require(delivered == proposal.entries, "result", f"{execution.id} delivers {delivered}")
            if not job.spec.deterministic:
                continue
            agreed = {
                e.node_id
                for e in executions.values()
                if e.proposal is not None
                and e.proposal.result_cid == proposal.result_cid
                and _group(job, e) == _group(job, execution)
            }
            needed = int(job.spec.verifier.params.get("Confidence") or 2)
            require(len(agreed) >= needed, "confidence", f"{job.id}: only {sorted(agreed)} agree")


def _group(job: Job, execution: Execution) -> int:
    """What an execution does: those of one group do the same."""
    if execution.slot is None:
        return -1
    return execution.slot if job.spec.is_ops else execution.slot // job.spec.group_size


def _groups(job: Job) -> set[int]:
    if job.spec.is_ops:
        return set(range(len(job.nodes)))
    return set(range(job.spec.count if job.spec.divided else 1))


def _check_once_a_node(job: Job, executions: Iterable[Execution]) -> None:
    """Over all processes of the requester, and whatever became of them. What a node handed back, or never
    began, is begun again by the same one."""
    ran = [e.node_id for e in executions if e.slot is not None and not e.drained]
    twice = [node for node, times in Counter(ran).items() if times > 1]
    require(not twice, "once a node", f"{job.id}: {twice} had it twice")
    others = set(ran) - set(job.nodes)
    require(not others, "once a node", f"{job.id}: {others} had it, and were not there in the beginning")
    if job.state in (JobState.COMPLETED, JobState.FAILED) and "gave a result" in job.message:
        missing = set(job.nodes) - set(ran)
        require(not missing, "once a node", f"{job.id} has ended without a word of {missing}")


def _check_who_comes_last(machine: RequesterMachine, entry: JobEntry, now: float) -> None:
    """Nobody who has lately wasted time is accepted while the bid of another node is rejected."""
    records = machine._penalties._records
    if entry.divided or entry.ops or not records:
        return
    changed = [each for each in entry.executions.values() if each.modified == now]
    last = {each.node_id for each in changed if each.state is S.BID_ACCEPTED and each.message == _CHOSEN}
    last = {node for node in last if node in records and records[node].noted < now < records[node].until}
    others = {
        each.node_id for each in changed if each.state is S.BID_REJECTED and each.message == _NOT_CHOSEN
    }
    better = {
        node for node in others - entry.failures.keys() if node not in records or records[node].until <= now
    }
    require(not last or not better, "last", f"{entry.job.id}: {last} wasted time, and came before {better}")


def _check_twin(entry: JobEntry, execution: Execution) -> None:
    """What failed keeps its slot only if another execution publishes, or has published, the same result."""
    mine = execution.proposal
    twin = mine is not None and any(
        other.proposal is not None and other.proposal.result_cid == mine.result_cid
        for other in entry.executions.values()
        if other.state in (S.RESULT_ACCEPTED, S.COMPLETED)
        and _group(entry.job, other) == _group(entry.job, execution)
    )
    require(twin, "slots", f"{execution.id} is {execution.state}, and its slot is not open")


def _check_attempts(job: Job, executions: Iterable[Execution]) -> None:
    """Over all processes of the requester."""
    executions = list(executions)
    attempts = Counter(e.slot for e in executions if e.slot is not None and not e.drained)
    most = max(attempts.values(), default=0)
    require(most <= MAX_ATTEMPTS, "attempts", f"{job.id}: a slot has {most} attempts")
    witnesses = {e.node_id for e in executions if e.permanent}
    enough = min(2, job.spec.group_size) if job.spec.deterministic else 1
    said = f"{job.id} goes on, though {sorted(witnesses)} report that no node can run it"
    require(len(witnesses) < enough or job.state.terminal, "permanent", said)
