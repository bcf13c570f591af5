"""What the machines of a simulated node ask for, done by its engine and told to the watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bacalhau_p2p.compute import events as cv
from bacalhau_p2p.requester import events as rv
from bacalhau_p2p.verifiers.deterministic import judge
from bacalhau_p2p.verifiers.interface import Verdict

if TYPE_CHECKING:
    from tests.simulation.nodes.node import Life


def perform_for_requester(life: Life, action: Any) -> None:
    assert isinstance(action, rv.Verify)
    world, requester = life.world, life.requester
    assert requester is not None
    outcome = life.node.engine.outcome_of("verify")
    answer: rv.Event
    if outcome in ("retryable", "permanent"):
        answer = rv.VerifierFailed(action.job_id, "the verifier fell over")
    elif action.spec.deterministic:
        confidence = int(action.spec.verifier.params.get("Confidence") or 0)
        answer = rv.Verified(action.job_id, judge(action.proposals, confidence=confidence))
    else:
        everybody = frozenset(proposal.execution_id for proposal in action.proposals)
        answer = rv.Verified(action.job_id, Verdict(accepted=everybody, rejected=frozenset()))
    if outcome != "hang":
        world.at(world.now + 0.05, life.guarded(lambda: requester.put(answer)))


def perform_for_compute(life: Life, action: Any) -> None:
    engine, watch = life.node.engine, life.world.watch
    match action:
        case cv.Inspect():
            engine.look(life, action)
        case cv.StopInspection():
            engine.stop_looking(action)
        case cv.Prepare(execution):
            watch.preparing(life.node, execution)
            engine.prepare(life, execution)
        case cv.Run(execution):
            survives = life.world.job_plans[execution.spec.name].survives
            watch.running(life.node, execution, survives=survives)
            engine.run(life, execution)
        case cv.Reattach(execution):
            engine.reattach(life, execution)
        case cv.Publish(execution):
            watch.publishing(life.node, execution)
            engine.publish(life, execution)
        case cv.Stop(execution_id):
            engine.stop(execution_id)
        case cv.CleanUp(execution):
            engine.clean_up(execution.id)
        case cv.LearnAddresses():
            pass
