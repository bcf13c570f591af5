"""What must hold in every world, checked on whatever has just changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.bprotocol.codec import Envelope, MessageID
from bacalhau_p2p.bprotocol.inbox import Arrival
from bacalhau_p2p.components.commit_plan import Commit, record_key
from bacalhau_p2p.components.protocol import Send, Store
from bacalhau_p2p.compute.machine import ComputeMachine
from bacalhau_p2p.compute.record import ComputeExecution
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.state import ComputeState, ExecutionState, JobState
from bacalhau_p2p.requester.liveness import LOST_AFTER_SURVIVING
from bacalhau_p2p.requester.machine import RequesterMachine
from bacalhau_p2p.requester.progress import ATTEMPTS
from bacalhau_p2p.requester.record import ACTIVE, JobEntry
from bacalhau_p2p.requester.supervision import FELL_SILENT
from tests.simulation.checks.ending import look_at_end
from tests.simulation.checks.violation import Violation as Violation
from tests.simulation.checks.violation import require
from tests.simulation.nodes.store import Durable
from tests.simulation.worlds.stranger import STRANGER

if TYPE_CHECKING:
    from tests.simulation.nodes.component import Component
    from tests.simulation.nodes.node import SimulatedNode
    from tests.simulation.plans.plan import JobPlan
    from tests.simulation.worlds.world import World

S, C = ExecutionState, ComputeState
HOLDS_ROOM = frozenset({C.BID, C.PREPARING, C.RUNNING})
_OWED = {
    (C.PROPOSED, S.BID_ACCEPTED): "result_proposed",
    (C.COMPLETED, S.RESULT_ACCEPTED): "result_published",
    (C.FAILED, S.BID_ACCEPTED): "execution_failed",
    (C.FAILED, S.RESULT_ACCEPTED): "execution_failed",
}
"""What the node must have under way when it and the requester stand so."""


class Watch:
    """Told of everything as it happens; raises Violation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[tuple[int, Any], Any] = {}
        self._of_job: dict[tuple[PeerID, JobID], dict[ExecutionID, Execution]] = {}
        self.accepted_bids: set[ExecutionID] = set()
        self.accepted_results: set[ExecutionID] = set()
        self.answers: dict[JobID, JobPlan] = {}
        self.ended: dict[JobID, float] = {}
        self.sent: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        self.power_was_cut: set[PeerID] = set()
        self.runs: Counter[JobID] = Counter()
        """How often a job's runs were begun."""
        self._uncommitted: set[tuple[int, Hashable]] = set()
        """Records, by store and key, whose last change is not committed yet."""
        self._changed_by: dict[tuple[int, PeerID, MessageID], list[Hashable]] = {}
        """The records that a message changed, until it is marked as processed."""
        self._last_word: dict[tuple[PeerID, ExecutionID], float] = {}
        """When a requester last handled what an execution's node said of it."""

    # --- while a tick is handled ------------------------------------------------------------------

    def before_handling(self, component: Component, arrival: Arrival) -> None:
        if arrival.id is not None:
            again = (arrival.author, arrival.id) in component.durable.inbox
            require(not again, "repeat", f"{arrival.message.kind} of {arrival.author} has an effect twice")

    def handled(self, component: Component, arrival: Arrival, actions: Sequence[Any]) -> None:
        store = id(component.durable)
        if arrival.id is not None:
            changed = [record_key(action.record) for action in actions if isinstance(action, Store)]
            self._changed_by[store, arrival.author, arrival.id] = changed
            self._uncommitted.update((store, key) for key in changed)
        if arrival.author != STRANGER:
            self._note_word(component.life.node.peer, arrival.message)
            return
        for action in actions:
            harmless = isinstance(action, Send) and action.to == STRANGER
            if isinstance(action, Store) or not harmless:
                raise Violation("forgery", f"a stranger's {arrival.message.kind} led to {action}")

    def _note_word(self, requester: PeerID, message: say.Message) -> None:
        if isinstance(message, say.Heartbeat):
            for line in message.executions:
                self._last_word[requester, line.execution_id] = self._world.now
        elif (execution_id := getattr(message, "execution_id", None)) is not None:
            self._last_word[requester, execution_id] = self._world.now

    def last_word(self, requester: PeerID, execution: ExecutionID) -> float:
        """When this requester last handled what the execution's node said of it; 0.0 if never."""
        return self._last_word.get((requester, execution), 0.0)

    def after_tick(self, component: Component, now: float) -> None:
        machine = component.machine
        due = machine.next_deadline()
        require(due is None or due > now, "clock", f"the next deadline {due} is not after {now}")
        if isinstance(machine, ComputeMachine):
            self._check_room(machine)
        elif isinstance(machine, RequesterMachine):
            self._check_jobs(machine)

    def _check_room(self, machine: ComputeMachine) -> None:
        capacity = machine.capacity
        require(capacity.reserved.fits_in(capacity.limit), "capacity", "more is reserved than there is")
        owners = {e.id for e in machine.executions.values() if e.state in HOLDS_ROOM}
        require(
            capacity.holders == owners,
            "reservation",
            f"{sorted(capacity.holders - owners)} hold room, {sorted(owners - capacity.holders)} do not",
        )

    def _check_jobs(self, machine: RequesterMachine) -> None:
        for entry in machine.jobs.values():
            filled = [slot.execution for slot in entry.slots if slot.execution is not None]
            require(len(set(filled)) == len(filled), "slots", f"{entry.job.id}: one execution in two slots")
            if entry.job.state.terminal:
                continue
            active = {e.id for e in entry.executions.values() if e.state in ACTIVE}
            require(active <= set(filled), "slots", f"{entry.job.id}: {active - set(filled)} fill no slot")
            for name in filled:
                if entry.executions[name].state in (S.FAILED, S.LOST):
                    self._check_twin(entry, entry.executions[name])
            if entry.open_slots:
                planned = entry.round.ends is not None or entry.round.next_at is not None
                require(planned, "slots", f"{entry.job.id}: an open slot, and no round is planned")

    def _check_twin(self, entry: JobEntry, execution: Execution) -> None:
        """A slot stays filled by what failed only if somebody publishes, or published, the same result."""
        mine = execution.proposal
        twin = mine is not None and any(
            other.proposal is not None and other.proposal.result_cid == mine.result_cid
            for other in entry.executions.values()
            if other.state in (S.RESULT_ACCEPTED, S.COMPLETED)
        )
        require(twin, "slots", f"{execution.id} is {execution.state}, and its slot is not open")

    # --- when something is kept ------------------------------------------------------------------

    def committed(self, component: Component, commit: Commit) -> None:
        node, disk = component.life.node, component.durable
        jobs: set[JobID] = set()
        for record in commit.records:
            key = (id(disk), record_key(record))
            before = self._known.get(key)
            self._known[key] = record
            if before is not None and before.state.terminal and record.state != before.state:  # type: ignore[attr-defined]
                raise Violation("terminal", f"{before.id} was {before.state} and is {record.state}")  # type: ignore[attr-defined]
            if isinstance(record, Job):
                self.states[f"job {record.state}"] += 1
                jobs.add(record.id)
            elif isinstance(record, Execution):
                self.states[f"execution {record.state}"] += 1
                self._execution_kept(node, record)
                jobs.add(record.job_id)
            elif isinstance(record, ComputeExecution):
                self.states[f"compute {record.state}"] += 1
                self._check_owed(node, disk, record)
        self._check_processed(disk, commit)
        for posted in commit.outbox:
            message = posted.envelope.message
            if isinstance(message, say.BidAccepted):
                self.accepted_bids.add(message.execution_id)
            elif isinstance(message, say.ResultAccepted):
                self.accepted_results.add(message.execution_id)
        for job_id in sorted(jobs):
            job = disk.records.get(job_id)
            if isinstance(job, Job):
                self._check_job(node, job, self._of_job.get((node.peer, job_id), {}))

    def _check_processed(self, disk: Durable, commit: Commit) -> None:
        """A message is marked as processed with its effects or after them: a crash must not come between."""
        self._uncommitted.difference_update((id(disk), record_key(record)) for record in commit.records)
        for processed in commit.processed:
            for key in self._changed_by.pop((id(disk), processed.author, processed.id), ()):
                missing = (id(disk), key) in self._uncommitted
                require(
                    not missing, "atomic", f"a message is marked as processed without its change of {key}"
                )

    def _execution_kept(self, node: SimulatedNode, execution: Execution) -> None:
        self._of_job.setdefault((node.peer, execution.job_id), {})[execution.id] = execution
        if execution.state == S.LOST and FELL_SILENT in execution.message:
            job = node.requester_disk.records[execution.job_id]
            silent = self._world.now - self._last_word[node.peer, execution.id]
            require(
                silent > LOST_AFTER_SURVIVING - 0.1 or not self._world.job_plans[job.spec.name].survives,
                "patience",
                f"{execution.id} outlives its node, and was given up {silent:.1f} s after its last word",
            )

    def _check_job(self, node: SimulatedNode, job: Job, executions: dict[ExecutionID, Execution]) -> None:
        filling = [e for e in executions.values() if e.state in ACTIVE or e.state == S.COMPLETED]
        require(len(filling) <= job.spec.count, "count", f"{job.id}: {len(filling)} executions at one time")
        nodes = [e.node_id for e in filling]
        require(len(set(nodes)) == len(nodes), "one say", f"{job.id}: two executions on one node")
        self._check_attempts(job, executions.values())
        if job.state.terminal:
            self.ended.setdefault(job.id, self._world.now)
            active = [e.id for e in filling if e.state in ACTIVE]
            require(not active, "over", f"{job.id} is {job.state} with active {active}")
        if job.state == JobState.COMPLETED:
            self._check_completed(job, executions)

    def _check_attempts(self, job: Job, executions: Iterable[Execution]) -> None:
        """Over all lives of the requester."""
        attempts = Counter(e.slot for e in executions if e.slot is not None and not e.drained)
        most = max(attempts.values(), default=0)
        require(most <= ATTEMPTS, "attempts", f"{job.id}: a slot has {most} attempts")
        witnesses = {e.node_id for e in executions if e.permanent}
        enough = min(2, job.spec.count) if job.spec.deterministic else 1
        said = f"{job.id} goes on, though {sorted(witnesses)} say that nobody can run it"
        require(len(witnesses) < enough or job.state.terminal, "permanent", said)

    def _check_completed(self, job: Job, executions: dict[ExecutionID, Execution]) -> None:
        completed = [e for e in executions.values() if e.state == S.COMPLETED]
        require(bool(completed), "result", f"{job.id} is Completed without a result")
        for execution in completed:
            proposal, published = execution.proposal, execution.published
            require(
                proposal is not None and published is not None and published.cid == proposal.result_cid,
                "result",
                f"{execution.id}: published is not what was verified",
            )
            assert proposal is not None
            truth = self._world.nodes[execution.node_id].engine.truth.get(execution.id)
            require(truth == proposal.result_cid, "result", f"{execution.id} gave {truth}")
            if not job.spec.deterministic:
                continue
            agreed = {
                e.node_id
                for e in executions.values()
                if e.proposal is not None and e.proposal.result_cid == proposal.result_cid
            }
            needed = int(job.spec.verifier.params.get("Confidence") or 2)
            require(len(agreed) >= needed, "confidence", f"{job.id}: only {sorted(agreed)} agree")

    # --- what is owed to whom ---------------------------------------------------------------------

    def _check_owed(self, node: SimulatedNode, disk: Durable, record: ComputeExecution) -> None:
        """Whatever a node has come to is under way to the requester, or has arrived there."""
        requester = self._world.nodes.get(record.requester_id)
        if requester is None:
            return
        view = requester.requester_disk.records.get((record.job_id, record.id))
        if view is None or (kind := _OWED.get((record.state, view.state))) is None:
            return
        under_way = any(
            posted.envelope.message.kind == kind and posted.envelope.message.execution_id == record.id  # type: ignore[attr-defined]
            for posted in disk.outbox.values()
        )
        what = f"{record.id} is {record.state} on {node.peer}, its requester has {view.state}"
        require(under_way, "conservation", f"{what}, and no {kind} is under way")

    def acknowledged(self, node: SimulatedNode, author: PeerID, ids: Iterable[bytes]) -> None:
        """Who acknowledges a message has kept what it changed."""
        receiver = self._world.nodes.get(author)
        if receiver is None:
            return
        for raw in ids:
            message_id = MessageID(raw)
            key = (node.peer, message_id)
            if key in receiver.requester_disk.inbox or key in receiver.compute_disk.inbox:
                continue
            posted = node.requester_disk.outbox.get(message_id) or node.compute_disk.outbox.get(message_id)
            what = posted.envelope.message.kind if posted else "a message"
            raise Violation(
                "acknowledgement", f"{author} acknowledged {what} of {node.peer} and has not kept it"
            )

    def posted(self, disk: Durable, envelope: Envelope) -> None:
        """Only what is kept may leave."""
        require(envelope.id in disk.outbox, "outbox", f"{envelope.message.kind} is sent and not kept")

    def node_stopped(self, node: SimulatedNode, *, power: bool) -> None:
        stores = {id(node.requester_disk), id(node.compute_disk)}
        self._uncommitted = {each for each in self._uncommitted if each[0] not in stores}
        self._changed_by = {each: keys for each, keys in self._changed_by.items() if each[0] not in stores}
        if power:
            self.power_was_cut.add(node.peer)
            for disk in (node.requester_disk, node.compute_disk):
                for key in [key for key in self._known if key[0] == id(disk)]:
                    if key[1] not in disk.records:
                        del self._known[key]
                    else:
                        self._known[key] = disk.records[key[1]]
        for job_id, job in self.answers.items():
            if job.requester == node.peer:
                kept = job_id in node.requester_disk.records
                require(kept, "submit", f"{job_id} was answered, and is not in the store after a crash")
        for record in node.compute_disk.records.values():
            self._check_owed(node, node.compute_disk, record)

    # --- effects ----------------------------------------------------------------------------------

    def answered(self, plan: JobPlan, job_id: JobID) -> None:
        self.answers[job_id] = plan

    def preparing(self, node: SimulatedNode, execution: ComputeExecution) -> None:
        accepted = execution.id in self.accepted_bids
        require(accepted, "acceptance", f"{execution.id} is prepared, and its bid was never accepted")

    def running(self, node: SimulatedNode, execution: ComputeExecution, *, survives: bool) -> None:
        self.runs[execution.job_id] += 1
        first = node.engine.started[execution.id] == 0
        excused = not survives or node.peer in self.power_was_cut
        require(first or excused, "once", f"{execution.id} runs a second time, though its run was there")

    def publishing(self, node: SimulatedNode, execution: ComputeExecution) -> None:
        accepted = execution.id in self.accepted_results
        require(accepted, "acceptance", f"{execution.id} is published, and was never accepted")

    def all_over(self) -> bool:
        """Whether nothing is left to happen. Raises Violation when it should be so by now."""
        return look_at_end(self._world)
