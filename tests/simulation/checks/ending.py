"""When a world is over, what must have come of it, and by when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from bacalhau_p2p.compute.machine import ComputeMachine
from bacalhau_p2p.compute.presence import GONE_AFTER
from bacalhau_p2p.compute.transitions import KEEP_PROPOSED_FOR, REPEAT_FAILURE_FOR
from bacalhau_p2p.model.base import JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Job
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.requester.groups import ACTIVE
from bacalhau_p2p.requester.liveness import LOST_AFTER_SURVIVING
from bacalhau_p2p.requester.machine import RequesterMachine
from bacalhau_p2p.requester.record import JobEntry
from bacalhau_p2p.requester.supervision import RECONCILE_INTERVAL
from tests.simulation.checks.violation import require
from tests.simulation.checks.watch import Watch
from tests.simulation.nodes.node import SimulatedNode
from tests.simulation.nodes.running_node import RunningNode
from tests.simulation.nodes.timeline import Timeline
from tests.simulation.plans.plan import JobPlan, Loss, Plan

SLACK = 45.0
"""Seconds after healing in which late messages, slow disks and restarts have passed."""
CHECK_INTERVAL = 5.0
"""Seconds between two checks whether all is over."""
QUIET_AFTER = 120.0
"""Seconds after the last job's end by which nothing may be left of any."""
LONGEST_STEP = 3600.0
"""Seconds after which a node gives up a step whose end it was not told of."""
CALM_OVERHEAD = 1.0
"""Seconds that a calm world may take for a job beyond its steps: bidding and the network."""


class Submission(Protocol):
    """What a user wants, and was answered."""

    @property
    def plan(self) -> JobPlan: ...

    @property
    def answer(self) -> JobID | None:
        """The job's id, once the user was given it."""
        ...


class Ending:
    """Decides whether a world is over. Raises Violation when a job, or what is left of it, is late."""

    def __init__(
        self,
        plan: Plan,
        timeline: Timeline,
        nodes: Mapping[PeerID, SimulatedNode],
        submissions: Sequence[Submission],
        watch: Watch,
    ) -> None:
        self._plan = plan
        self._timeline = timeline
        self._nodes = nodes
        self._submissions = submissions
        self._watch = watch
        self._settled_by = timeline.start + plan.heal_at + SLACK

    def is_over(self) -> bool:
        """Whether nothing is left to happen."""
        now = self._timeline.now
        for node in self._nodes.values():
            if node.running is not None:
                self._check_outboxes(node, node.running)
                if now > self._settled_by + SLACK:
                    self._check_waiting(node, node.running)
        waits = [self._waits_for(submission) for submission in self._submissions]
        if any(waits) or not self._timeline.healed:
            return False
        left = [what for node in self._nodes.values() if not node.gone for what in self._left(node)]
        if left:
            ended = max([*self._watch.jobs.ended.values(), self._settled_by])
            quiet_by = ended + QUIET_AFTER + (KEEP_PROPOSED_FOR if self._plan.whole_day else 0.0)
            quiet_by += LONGEST_STEP if self._timeline.disturbed else 0.0
            quiet_by += GONE_AFTER + REPEAT_FAILURE_FOR if self._plan.abandoned else 0.0
            require(now <= quiet_by, "quiet", f"long after everything, {left[0]}")
            return False
        self._check_promises()
        return True

    # --- while it goes on -------------------------------------------------------------------------

    def _waits_for(self, submission: Submission) -> bool:
        """Whether the user still waits for an answer, or for the end of the job."""
        now, node = self._timeline.now, self._nodes.get(PeerID(submission.plan.requester))
        if node is None or node.gone:
            return False
        if submission.answer is None:
            late = now > max(self._settled_by, self._timeline.start + submission.plan.at + SLACK)
            require(not late, "submit", f"{submission.plan.name} was never answered")
            return True
        job = node.disk.requester_store.known(submission.answer)
        assert isinstance(job, Job)
        if job.state.terminal:
            return False
        ends = job.created + job.spec.total_timeout - node.plan.skew
        what = f"{job.id} is {job.state} after its total timeout: {job.message}"
        require(now <= max(self._settled_by, ends + SLACK), "ends", what)
        return True

    def _check_outboxes(self, node: SimulatedNode, running: RunningNode) -> None:
        """No message stays in an outbox after it has expired."""
        process, now = running.process, self._timeline.now
        if now - process.began < SLACK or now < process.busy_until:
            return
        for store in node.disk.stores:
            for message in store.outbox.values():
                overdue = process.clock() > message.give_up_at + SLACK
                require(
                    not overdue,
                    "give up",
                    f"{node.peer} never drops the expired {message.envelope.message.kind}",
                )

    def _check_waiting(self, node: SimulatedNode, running: RunningNode) -> None:
        """Long after healing, when all nodes are up that ever will be: no execution is waited for in vain."""
        if running.requester is None:
            return
        machine = running.requester.machine
        assert isinstance(machine, RequesterMachine)
        for entry in machine.jobs.values():
            if entry.job.id in self._timeline.disturbed:
                continue
            for execution in entry.executions.values():
                if execution.state in ACTIVE:
                    self._check_silence(node, running, entry, execution)

    def _check_silence(
        self, node: SimulatedNode, running: RunningNode, entry: JobEntry, execution: Execution
    ) -> None:
        # What a node said before it left may have been in flight for long, and counts when it arrives.
        last_sign = max(
            self._settled_by,
            self._watch.messages.last_word(node.peer, execution.id),
            running.process.world_time(execution.modified),
        )
        lost_by = last_sign + LOST_AFTER_SURVIVING + CHECK_INTERVAL
        runs_on = self._nodes.get(execution.node_id)
        late = runs_on is not None and runs_on.gone and self._timeline.now > lost_by
        require(not late, "silence", f"{execution.id} is {execution.state}, and its node left long ago")
        asked_at = max(execution.modified, entry.reconciled_at.get(execution.id, 0.0))
        silent = running.process.clock() - asked_at > RECONCILE_INTERVAL + CHECK_INTERVAL
        require(not silent, "reconcile", f"{execution.node_id} was not asked about {execution.id} for long")

    # --- at the end -------------------------------------------------------------------------------

    def _left(self, node: SimulatedNode) -> Iterator[str]:
        """What is still going on at this node."""
        if node.running is None:
            yield f"{node.peer} is down"
            return
        yield from (f"{node.peer} still has the run of {name}" for name in node.engine.runs)
        yield from (f"{node.peer} still has the result of {name}" for name in node.engine.results)
        for store in node.disk.stores:
            for message in store.outbox.values():
                if message.to in self._nodes and not self._nodes[message.to].gone:
                    yield f"{node.peer} still sends {message.envelope.message.kind} to {message.to}"
        if node.running.compute is not None:
            machine = node.running.compute.machine
            assert isinstance(machine, ComputeMachine)
            for execution in machine.executions.values():
                if not execution.state.terminal:
                    yield f"{execution.id} is {execution.state} on {node.peer}"
            yield from (f"{node.peer} reserves room for {name}" for name in sorted(machine.capacity.holders))

    def _check_promises(self) -> None:
        if not self._plan.mild:
            return
        for job in self._jobs():
            if job.id in self._timeline.disturbed:
                continue
            what = f"{job.id} is {job.state} in a mild world: {job.message}"
            require(job.state == JobState.COMPLETED, "completes", what)
        if self._plan.returning:
            for job in self._jobs():
                runs = self._watch.executions.runs[job.id]
                what = f"{job.id} was run {runs} times for {job.spec.count} results"
                require(runs == job.spec.count, "once", what)
        if not (self._timeline.disturbed or any(isinstance(fault, Loss) for fault in self._plan.faults)):
            lost = self._watch.lost_runs
            require(lost == 0, "wasted", f"{lost} executions are Lost though no node was away for long")
        if self._plan.calm:
            self._check_calm()

    def _jobs(self) -> Iterator[Job]:
        """The jobs of all users, in a world in which no requester leaves for good."""
        for submission in self._submissions:
            assert submission.answer is not None
            store = self._nodes[PeerID(submission.plan.requester)].disk.requester_store
            yield store.known(submission.answer)

    def _check_calm(self) -> None:
        """Nothing went wrong: every figure is known beforehand."""
        computes = sum(node.compute for node in self._plan.nodes)
        jobs = self._plan.jobs
        count = sum(job.count for job in jobs)
        expected = {
            "bid": computes * len(jobs),
            "bid_accepted": count,
            "bid_rejected": computes * len(jobs) - count,
            "result_proposed": count,
            "result_accepted": count,
            "result_published": count,
        }
        sent = {kind: number for kind, number in sorted(self._watch.sent_kinds.items()) if number}
        wanted = {kind: number for kind, number in sorted(expected.items()) if number}
        require(sent == wanted, "calm", f"messages {sent}, not {wanted}")
        repeats = self._timeline.repeats
        require(repeats == 0, "calm", f"{repeats} messages were repeated")
        for submission in self._submissions:
            assert submission.answer is not None
            plan = submission.plan
            took = self._watch.jobs.ended[submission.answer] - self._timeline.start - plan.at
            steps = plan.prepare + plan.run + plan.publish
            what = f"{submission.answer} took {took:.2f} s for {steps:.2f} s of work"
            require(took <= steps + CALM_OVERHEAD, "calm", what)
