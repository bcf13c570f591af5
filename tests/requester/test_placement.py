"""What a job keeps up to date about its executions, and that no event looks at all of them.

The modules are `placement`, `groups` and `node_parts`.

That it agrees with the records is compared after each event of the other tests, and of the simulator.
"""

from __future__ import annotations

from random import Random

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.components.undo import undone_on_error
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.execution import Execution, PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.state import ComputeState, JobState
from bacalhau_p2p.requester import events as ev
from bacalhau_p2p.requester.groups import GONE, Slot
from bacalhau_p2p.requester.placement import Placement
from bacalhau_p2p.verifiers.interface import Verdict
from tests.support.machines.derived import wrong_in
from tests.support.machines.effort import instructions_of
from tests.support.machines.fingerprint import fingerprint
from tests.support.machines.requester_bench import (
    JOB,
    A,
    B,
    C,
    D,
    RequesterBench,
    S,
    execution_id,
    heartbeat_of,
    job,
)
from tests.support.results import plaintext_of, result_cid, results_folder

NODES = (A, B, C, D)
STRANGER = PeerID("stranger")


def offer(bench, node, number, *, late=False, more=0):
    current = bench.machine.jobs[JOB].round.number
    name = execution_id(node, number)
    bench.receive(
        node,
        say.Bid(job_id=JOB, execution_id=name, round=current, reserved_for=30, late=late, more=more),
    )
    return name


def half_placed(partitions):
    """A job of so many partitions, of which half run and half wait for nodes."""
    bench = RequesterBench()
    bench.checked = False
    bench.add_nodes(*NODES)
    bench.submit(job(partitions, Deal={"Replicas": 1}))
    each = partitions // 2 // len(NODES)
    for node in NODES:
        for number in range(each):
            offer(bench, node, number, more=each - 1 - number)
    bench.wait(0.5)
    assert len(bench.machine.jobs[JOB].placement.active) == partitions // 2
    return bench


def effort_of_events(partitions):
    """The instructions that each event takes."""
    bench = half_placed(partitions)
    effort = {}

    def measure(what, call):
        effort[what] = instructions_of(call)

    name, other = execution_id(A, 0), execution_id(B, 0)
    beat = say.ExecutionProgress(execution_id=name, state=ComputeState.RUNNING)
    measure("heartbeat", lambda: bench.receive(A, say.Heartbeat(executions=(beat,))))
    sealed = plaintext_of(results_folder("right"), JOB, name, A)
    proposed = say.ResultProposed(job_id=JOB, execution_id=name, sealed=sealed)
    measure("proposal", lambda: bench.receive(A, proposed))
    group = bench.machine.jobs[JOB].executions[name].slot
    verdict = Verdict(accepted=frozenset({name}), rejected=frozenset())
    measure("verdict", lambda: bench.handle(ev.Verified(JOB, verdict, group)))
    result = PublishedResult(cid=result_cid("right"), location=SpecConfig(type="ipfs"))
    published = say.ResultPublished(job_id=JOB, execution_id=name, result=result)
    measure("publication", lambda: bench.receive(A, published))
    assert bench.machine.jobs[JOB].executions[name].state is S.COMPLETED
    measure("late bid", lambda: offer(bench, A, 9_000, late=True))
    failed = say.ExecutionFailed(job_id=JOB, execution_id=other, reason="no")
    measure("failure", lambda: bench.receive(B, failed))
    measure("refusal", lambda: bench.receive(C, say.BidDeclined(job_id=JOB, round=1, reason="no")))
    measure("bid of a stranger", lambda: offer(bench, STRANGER, 1))
    measure("broken connection", lambda: bench.handle(ev.NodeDisconnected(STRANGER)))
    measure("connection", lambda: bench.handle(ev.NodeConnected(STRANGER)))
    measure("new node", lambda: bench.add_nodes(PeerID("new")))
    measure("time", lambda: bench.wait(1))
    assert bench.job.state is JobState.RUNNING
    return effort


def test_no_event_takes_longer_in_a_job_of_many_partitions():
    few, many = effort_of_events(16), effort_of_events(320)
    slow = {what: (few[what], many[what]) for what in few if many[what] > 1.2 * few[what] + 100}
    assert slow == {}


def effort_of_ops_events(nodes):
    """The most instructions that each kind of event takes in an ops job that half of its nodes have taken."""
    bench, effort = RequesterBench(), dict[str, int]()
    bench.checked = False
    names = [PeerID(f"node{number:04}") for number in range(nodes)]
    bench.add_nodes(*names)
    bench.submit(job(Type="ops"))

    def measure(what, call):
        effort[what] = max(effort.get(what, 0), instructions_of(call))

    for node in names[::2]:
        measure("bid", lambda node=node: bench.bid(node))
    taken, waited_for = names[0], names[1]
    measure("heartbeat", lambda: bench.receive(taken, heartbeat_of(taken)))
    measure("failure", lambda: bench.fail(taken))
    measure("bid of another node", lambda: offer(bench, STRANGER, 1))
    for node in (names[2], waited_for):
        measure("broken connection", lambda node=node: bench.handle(ev.NodeDisconnected(node)))
        measure("connection", lambda node=node: bench.handle(ev.NodeConnected(node)))
    measure("stale node", lambda: bench.handle(ev.NodeWentStale(waited_for)))
    measure("new node", lambda: bench.add_nodes(PeerID("new")))
    assert len(bench.machine.jobs[JOB].placement.active) == nodes // 2
    return effort


def test_no_event_takes_longer_in_an_ops_job_on_many_nodes():
    few, many = effort_of_ops_events(16), effort_of_ops_events(320)
    slow = {what: (few[what], many[what]) for what in few if many[what] > 1.2 * few[what] + 100}
    assert slow == {}


@pytest.mark.parametrize("divided", [True, False])
def test_whatever_happens_is_kept_up_to_date_and_undone(divided):
    rng = Random(7)
    groups = 3 if divided else 1
    slots = [Slot(number, group=number % groups) for number in range(6)]  # not side by side
    placement = Placement.of(slots, divided=divided)
    names = [ExecutionID(f"e{number}") for number in range(12)]
    for _ in range(400):
        before = fingerprint(placement)
        fails = rng.random() < 0.3
        try:
            with undone_on_error():
                for _ in range(rng.randrange(1, 4)):
                    change(placement, rng, names)
                assert list(wrong_in(placement)) == []
                if fails:
                    raise ArithmeticError
        except ArithmeticError:
            assert fingerprint(placement) == before
            assert list(wrong_in(placement)) == []


def change(placement, rng, names):
    """One of the changes of a job, at random."""
    name, slot = rng.choice(names), rng.choice(placement.slots)
    execution = placement.executions.get(name)
    kind = rng.randrange(4)
    if execution is None:
        placement.put(bid(name, rng.choice(NODES)))
    elif execution.state is S.BID_RECEIVED and slot.execution is None:
        accepted = execution.replace(state=S.BID_ACCEPTED, slot=slot.number)
        placement.put(accepted)
        placement.fill(slot, accepted)
        placement.count_attempt(slot)
    elif kind == 0 and execution.slot is not None and not execution.state.terminal:
        state = rng.choice([each for each in S if each not in (S.BID_RECEIVED, S.BID_REJECTED)])
        placement.put(execution.replace(state=state, drained=state in GONE and rng.random() < 0.5))
    elif kind == 1 and slot.execution is not None:
        placement.reopen(slot)
    elif kind == 2:
        (placement.groups.ask if rng.random() < 0.5 else placement.groups.answered)(slot.group)
    elif slot.attempts:
        placement.count_attempt(slot, -1)


def bid(name, node):
    return Execution(id=name, job_id=JOB, node_id=node, state=S.BID_RECEIVED, created=0, modified=0)


def test_when_a_job_has_ended_its_records_change_and_nothing_else():
    placement = Placement.of([Slot(0), Slot(1)])
    filling, waiting = bid(ExecutionID("e1"), A), bid(ExecutionID("e2"), B)
    placement.put(waiting)
    placement.put(filling)
    accepted = filling.replace(state=S.BID_ACCEPTED, slot=0)
    placement.put(accepted)
    placement.fill(placement.slots[0], accepted)
    assert placement.end() == [waiting, accepted]
    before = fingerprint(placement.groups), fingerprint(placement.nodes)
    assert placement.put(accepted.replace(state=S.CANCELLED)) is False
    assert placement.executions[accepted.id].state is S.CANCELLED
    assert (fingerprint(placement.groups), fingerprint(placement.nodes)) == before
    assert placement.end() == []
