"""When a world is over, what must have come of it, and by when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bacalhau_p2p.compute.machine import ComputeMachine
from bacalhau_p2p.compute.transitions import KEEP_PROPOSED
from bacalhau_p2p.model.execution import Job
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.requester.liveness import LOST_AFTER_SURVIVING
from bacalhau_p2p.requester.machine import RequesterMachine
from bacalhau_p2p.requester.record import ACTIVE
from bacalhau_p2p.requester.supervision import RECONCILE_EVERY
from tests.simulation.checks.violation import require
from tests.simulation.plans.plan import Loss

if TYPE_CHECKING:
    from tests.simulation.nodes.node import SimulatedNode
    from tests.simulation.worlds.world import World

SLACK = 45.0
"""Seconds after healing in which late messages, slow disks and restarts have passed."""
LOOK_EVERY = 5.0
"""Seconds between looks at whether all is over."""
QUIET_AFTER = 120.0
"""Seconds after the last job's end by which nothing may be left of any."""
BRISK = 1.0
"""Seconds that a calm world may take for a job beyond its steps: bidding and the network."""


def look_at_end(world: World) -> bool:
    """Whether all is over. Raises Violation when a job, or what is left of it, is late."""
    settled_by = world.start + world.plan.heal_at + SLACK
    for node in world.nodes.values():
        _check_nothing_is_kept_for_ever(node)
        if world.now > settled_by + SLACK:
            _check_nobody_is_waited_for_in_vain(world, node)
    waiting = False
    for user in world.users:
        node = world.nodes.get(user.plan.requester)  # type: ignore[call-overload]
        if node is None or node.gone:
            continue
        if user.answer is None:
            late = world.now > max(settled_by, world.start + user.plan.at + SLACK)
            require(not late, "submit", f"{user.plan.name} was never answered")
            waiting = True
            continue
        job = node.requester_disk.records[user.answer]
        assert isinstance(job, Job)
        if not job.state.terminal:
            ends = job.created + job.spec.total_timeout - node.plan.skew
            what = f"{job.id} is {job.state} after its total time-out: {job.message}"
            require(world.now <= max(settled_by, ends + SLACK), "ends", what)
            waiting = True
    if waiting or not world.healed:
        return False
    left = [what for node in world.nodes.values() if not node.gone for what in _left(world, node)]
    if left:
        ended = max([*world.watch.ended.values(), settled_by])
        quiet_by = ended + QUIET_AFTER + (KEEP_PROPOSED if world.plan.whole_day else 0.0)
        require(world.now <= quiet_by, "quiet", f"long after everything, {left[0]}")
        return False
    _check_promises(world)
    return True


def _check_nothing_is_kept_for_ever(node: SimulatedNode) -> None:
    life = node.life
    if life is None or life.world.now - life.began < SLACK or life.world.now < life.busy_until:
        return
    for disk in (node.requester_disk, node.compute_disk):
        for posted in disk.outbox.values():
            overdue = life.clock() > posted.give_up_at + SLACK
            require(not overdue, "give up", f"{node.peer} never gives up {posted.envelope.message.kind}")


def _check_nobody_is_waited_for_in_vain(world: World, node: SimulatedNode) -> None:
    """Long after healing, when everybody is up who ever will be."""
    life = node.life
    if life is None or life.requester is None:
        return
    machine = life.requester.machine
    assert isinstance(machine, RequesterMachine)
    now = life.clock()
    for entry in machine.jobs.values():
        for execution in entry.executions.values():
            if execution.state not in ACTIVE:
                continue
            # What a node said before it left may have been under way for long, and counts when it arrives.
            last_sign = max(
                world.start + world.plan.heal_at + SLACK,
                world.watch.last_word(node.peer, execution.id),
                life.world_time(execution.modified),
            )
            lost_by = last_sign + LOST_AFTER_SURVIVING + LOOK_EVERY
            late = world.nodes[execution.node_id].gone and world.now > lost_by
            require(not late, "silence", f"{execution.id} is {execution.state}, and its node left long ago")
            told = max(execution.modified, entry.reconciled.get(execution.id, 0.0))
            silent = now - told > RECONCILE_EVERY + LOOK_EVERY
            require(
                not silent, "reconcile", f"{execution.node_id} was not asked about {execution.id} for long"
            )


def _left(world: World, node: SimulatedNode) -> list[str]:
    """What is still going on at this node."""
    life = node.life
    if life is None:
        return [f"{node.peer} is down"]
    left = [f"{node.peer} still has the run of {name}" for name in node.engine.runs]
    left += [f"{node.peer} still has the result of {name}" for name in node.engine.results]
    for disk in (node.requester_disk, node.compute_disk):
        left += [
            f"{node.peer} still says {posted.envelope.message.kind} to {posted.to}"
            for posted in disk.outbox.values()
            if posted.to in world.nodes and not world.nodes[posted.to].gone
        ]
    if life.compute is not None:
        machine = life.compute.machine
        assert isinstance(machine, ComputeMachine)
        left += [
            f"{execution.id} is {execution.state} on {node.peer}"
            for execution in machine.executions.values()
            if not execution.state.terminal
        ]
        left += [f"{node.peer} reserves room for {name}" for name in sorted(machine.capacity.holders)]
    return left


def _check_promises(world: World) -> None:
    if not world.plan.mild:
        return
    for user in world.users:
        assert user.answer is not None
        job = world.nodes[user.plan.requester].requester_disk.records[user.answer]  # type: ignore[index]
        require(
            job.state == JobState.COMPLETED,
            "completes",
            f"{job.id} is {job.state} in a mild world: {job.message}",
        )
    if world.plan.returning:
        for user in world.users:
            assert user.answer is not None
            runs = world.watch.runs[user.answer]
            once = f"{user.answer} was run {runs} times for {user.plan.count} results"
            require(runs == user.plan.count, "once", once)
    if not any(isinstance(fault, Loss) for fault in world.plan.faults):
        lost = world.watch.states[f"execution {ExecutionState.LOST}"]
        require(lost == 0, "wasted", f"{lost} executions are Lost though no node was away for long")
    if world.plan.calm:
        _check_calm(world)


def _check_calm(world: World) -> None:
    """Nothing went wrong: every figure is known beforehand."""
    computes = sum(node.compute for node in world.plan.nodes)
    jobs = world.plan.jobs
    count = sum(job.count for job in jobs)
    expected = {
        "bid": computes * len(jobs),
        "bid_accepted": count,
        "bid_rejected": computes * len(jobs) - count,
        "result_proposed": count,
        "result_accepted": count,
        "result_published": count,
    }
    sent = {kind: number for kind, number in sorted(world.watch.sent.items()) if number}
    wanted = {kind: number for kind, number in sorted(expected.items()) if number}
    require(sent == wanted, "calm", f"messages {sent}, not {wanted}")
    require(world.repeats == 0, "calm", f"{world.repeats} messages were repeated")
    for user in world.users:
        assert user.answer is not None
        took = world.watch.ended[user.answer] - world.start - user.plan.at
        steps = user.plan.prepare + user.plan.run + user.plan.publish
        require(took <= steps + BRISK, "calm", f"{user.answer} took {took:.2f} s for {steps:.2f} s of work")
