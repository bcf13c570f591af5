"""Carries out what the machines of a simulated node ask for, with the node's engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bacalhau_p2p.compute import events as cv
from bacalhau_p2p.model.params import DeterministicParams
from bacalhau_p2p.model.validation import read_params
from bacalhau_p2p.requester import events as rv
from bacalhau_p2p.verifiers.deterministic import judge
from bacalhau_p2p.verifiers.interface import Verdict
from tests.simulation.nodes.engine import Engine
from tests.simulation.nodes.observer import Observer
from tests.simulation.nodes.process import Process

VERIFICATION_SECONDS = 0.05


def perform_for_requester(
    action: Any, process: Process, engine: Engine, report: Callable[[rv.Event], None]
) -> None:
    """`report` is called with the verdict, unless the verifier is planned to hang."""
    if isinstance(action, rv.NodePenalised):
        return
    assert isinstance(action, rv.Verify)
    outcome = engine.outcome_of("verify")
    answer: rv.Event
    if outcome in ("retryable", "permanent"):
        answer = rv.VerifierFailed(action.job_id, "the verifier failed", action.group)
    elif action.spec.deterministic:
        params = read_params(DeterministicParams, action.spec.verifier)
        verdict = judge(action.proposals, confidence=params.confidence, entries=params.entries)
        answer = rv.Verified(action.job_id, verdict, action.group)
    else:
        everybody = frozenset(proposal.execution_id for proposal in action.proposals)
        answer = rv.Verified(action.job_id, Verdict(accepted=everybody, rejected=frozenset()), action.group)
    if outcome != "hang":
        process.at(process.timeline.now + VERIFICATION_SECONDS, lambda: report(answer))


def perform_for_compute(
    action: Any, process: Process, engine: Engine, report: Callable[[cv.Event], None], observer: Observer
) -> None:
    """`report` is called with what a step came to."""
    match action:
        case cv.Inspect():
            engine.inspect(process, report, action)
        case cv.StopInspection():
            engine.stop_inspecting(action)
        case cv.Prepare(execution):
            observer.preparing(execution)
            engine.prepare(process, report, execution)
        case cv.Run(execution):
            observer.running(process.peer, execution)
            engine.run(process, report, execution)
        case cv.Reattach(execution):
            engine.reattach(process, report, execution)
        case cv.Publish(execution):
            observer.publishing(execution)
            engine.publish(process, report, execution)
        case cv.Stop(execution_id):
            engine.stop(execution_id)
        case cv.CleanUp(execution):
            engine.clean_up(execution.id)
        case cv.LearnAddresses() | cv.ReportGone() | cv.ReportUndelivered():
            pass
