"""A message in any state and from any peer moves an execution by a row, or is ignored (`transitions`)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.compute import events as cv
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import SpecConfig
from bacalhau_p2p.model.state import ComputeState, ExecutionState
from tests.support.machines.compute_bench import ALICE, FIRST, SMALL, ComputeBench, message_about
from tests.support.machines.machine_bench import MachineBench
from tests.support.machines.requester_bench import JOB, A, B, RequesterBench, execution_id, job
from tests.support.results import result_cid

RESULT = PublishedResult(cid=result_cid("result"), location=SpecConfig(type="ipfs"))


def every_message(execution: ExecutionID) -> list[say.Message]:
    """One of each kind about this execution; of those with flags or a state, one for each value."""
    about = {"job_id": JOB, "execution_id": execution}
    return [
        say.JobAnnounced(job_id=JOB, spec=SMALL, bids_wanted=1, round=1, deadline=3600),
        say.JobClosed(job_id=JOB),
        say.Bid(**about, reserved_for=30),
        say.BidDeclined(job_id=JOB, round=1, reason="is busy"),
        say.ResultProposed(**about, sealed=b"garbage"),
        say.ResultPublished(**about, result=RESULT),
        *(
            say.ExecutionFailed(**about, reason="x", permanent=permanent, drained=drained)
            for permanent in (False, True)
            for drained in (False, True)
        ),
        *(
            say.Heartbeat(executions=(say.ExecutionProgress(execution_id=execution, state=state),))
            for state in ComputeState
        ),
        say.BidAccepted(**about),
        say.BidRejected(**about),
        say.ResultAccepted(**about),
        say.ResultRejected(**about),
        say.CancelExecution(**about),
        *(say.Reconcile(executions=(say.ExecutionView(**about, state=state),)) for state in ExecutionState),
    ]


# --- the requester --------------------------------------------------------------------------

REQUESTER_STEPS: list[Callable[[RequesterBench], object]] = [
    lambda bench: bench.submit(job(2)),
    lambda bench: bench.bid(A),
    lambda bench: bench.wait(1),
    lambda bench: bench.bid(B),
    lambda bench: bench.propose(A),
    lambda bench: bench.propose(B),
    lambda bench: bench.judge(accepted=[A, B]),
    lambda bench: bench.publish(A),
    lambda bench: bench.publish(B),
]
"""From nothing to Completed."""


@pytest.mark.parametrize("author", [A, B, PeerID("stranger")])
@pytest.mark.parametrize("steps", range(len(REQUESTER_STEPS) + 1))
def test_a_requester_survives_every_message(steps, author):
    for execution in (execution_id(A), ExecutionID("e-unknown")):
        for message in every_message(execution):
            bench = RequesterBench()
            bench.add_nodes(A, B)
            for step in REQUESTER_STEPS[:steps]:
                step(bench)
            bench.receive(author, message)
            bench.wait(400)
            _is_consistent(bench)


# --- the compute node -----------------------------------------------------------------------

COMPUTE_STEPS: list[Callable[[ComputeBench], object]] = [
    lambda bench: bench.announce(job_id=JOB),
    lambda bench: bench.receive(message_about(say.BidAccepted)),
    lambda bench: bench.handle(cv.Prepared(FIRST)),
    lambda bench: bench.handle(cv.RunFinished(FIRST, result_cid("result"), b"sealed")),
    lambda bench: bench.receive(message_about(say.ResultAccepted)),
    lambda bench: bench.handle(cv.Published(FIRST, RESULT)),
]
"""From nothing to Completed."""


@pytest.mark.parametrize("author", [ALICE, PeerID("stranger")])
@pytest.mark.parametrize("steps", range(len(COMPUTE_STEPS) + 1))
def test_a_compute_node_survives_every_message(steps, author):
    for execution in (FIRST, ExecutionID("e-unknown")):
        for message in every_message(execution):
            if isinstance(message, say.JobAnnounced):
                continue  # comes with an assessment
            bench = ComputeBench()
            for step in COMPUTE_STEPS[:steps]:
                step(bench)
            bench.receive(message, author)
            bench.wait(400)
            _is_consistent(bench)


def _is_consistent(bench: MachineBench) -> None:
    due = bench.machine.next_deadline()
    assert due is None or due > bench.now


def test_ignored_messages_are_counted_within_bounds():
    """By kind and state, and not by what a peer says."""
    bench = ComputeBench()
    bench.announce()
    for number in range(50):
        unknown = {"job_id": JobID(f"j-{number}"), "execution_id": ExecutionID(f"e-x{number}")}
        bench.receive(say.CancelExecution(**unknown, reason=f"reason {number}"), PeerID(f"peer-{number}"))
    assert bench.machine.ignored == {"CancelExecution for an unknown execution": 50}
