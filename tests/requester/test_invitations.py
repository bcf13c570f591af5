"""What a requester learns from the nodes that it has invited. `test_asked_directly.py` has who is invited."""

from __future__ import annotations

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.job import JobSpec
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.requester import events as ev
from tests.support.machines.requester_bench import (
    JOB,
    ROOM,
    RequesterBench,
    S,
    execution_id,
    job,
    sent,
)
from tests.support.results import result_cid

MANY = tuple(PeerID(f"node-{number}") for number in range(20))


def using(cid: str) -> JobSpec:
    source = {"Type": "ipfs", "Params": {"CID": cid}}
    task = {"Engine": {"Type": "noop"}, "InputSources": [{"Target": "/in", "Source": source}]}
    return job(Tasks=[task])


def connect(bench: RequesterBench) -> None:
    able = ComputeInfo(engines=("noop",), storage_sources=("ipfs",), publishers=("ipfs",), max_capacity=ROOM)
    for node in MANY:
        bench.handle(ev.NodeInfoReceived(NodeInfo(id=node, compute=able)))
        bench.handle(ev.NodeConnected(node))


def place(bench: RequesterBench) -> PeerID:
    """Submit a job, and return the node that runs it."""
    asked = [node for node, _ in sent(bench.submit(using(result_cid("data"))))]
    for node in asked[:3]:
        bench.bid(node)
    (chosen,) = [node for node, state in bench.states().items() if state == S.BID_ACCEPTED]
    return chosen


def times_asked(bench: RequesterBench, node: PeerID, cid: str) -> int:
    """Of ten jobs with this input, those for which the node is asked in any case."""
    times = 0
    for number in range(10):
        actions = bench.handle(ev.Submitted(JobID(f"{cid[-3:]}-{number}"), using(cid)))
        times += any(
            isinstance(each, ev.Send) and each.to == node and not getattr(each.message, "only_if_local", True)
            for each in actions
        )
    return times


def test_the_node_that_has_run_a_job_is_asked_when_another_job_wants_its_inputs_or_its_result(bench):
    connect(bench)
    chosen = place(bench)
    bench.propose(chosen)
    bench.judge(accepted=[chosen])
    bench.publish(chosen)
    assert times_asked(bench, chosen, result_cid("data")) == 10
    assert times_asked(bench, chosen, result_cid("right")) == 10
    assert times_asked(bench, chosen, result_cid("wrong")) < 10


def test_a_node_that_failed_a_job_is_not_preferred_for_its_inputs(bench):
    connect(bench)
    chosen = place(bench)
    local = say.Bid(
        job_id=JOB,
        execution_id=ExecutionID("e-again"),
        reserved_for=3,
        input_bytes=5,
        local_input_bytes=5,
    )
    bench.receive(chosen, local)
    assert times_asked(bench, chosen, result_cid("data")) == 10
    bench.receive(
        chosen, say.ExecutionFailed(job_id=JOB, execution_id=execution_id(chosen), reason="no such image")
    )
    assert times_asked(bench, chosen, result_cid("data")) < 10
