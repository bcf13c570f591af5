"""What a job says that it waits for."""

from __future__ import annotations

from bacalhau_p2p.bprotocol import messages as say
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.requester import events as ev
from tests.support.machines.requester_bench import JOB, A, B, C, job


def test_nodes_are_named_by_the_reason_for_which_they_do_not_take_the_job(bench):
    bench.add_nodes(A, B)
    bench.handle(ev.NodeInfoReceived(NodeInfo(id=C, compute=ComputeInfo(engines=("docker",)))))
    bench.submit(job())
    bench.receive(A, say.BidDeclined(job_id=JOB, round=1, reason="is busy", busy=True))
    bench.wait(3)
    assert bench.job.message == (
        "waiting for a node: bob did not answer; carol has no noop engine; alice is busy"
    )


def test_several_nodes_have_one_reason_and_many_are_counted(bench):
    bench.add_nodes(A, B)
    engine = {"Type": "wasm", "Params": {"EntryModule": "/a"}}
    bench.submit(job(Tasks=[{"Engine": engine}]))
    bench.wait(3)
    assert bench.job.message == "waiting for a node: alice, bob: has no wasm engine"
    bench.add_nodes(*(f"node-{number:02}" for number in range(30)))
    bench.wait(60)
    assert bench.job.message.endswith(": alice, bob, node-00, node-01 and 28 more: has no wasm engine")


def test_an_ops_job_waits_for_its_own_nodes_only(bench):
    bench.add_nodes(A, B)
    bench.submit(job(Type="ops"))
    bench.bid(A)
    bench.receive(B, say.BidDeclined(job_id=JOB, round=1, reason="is busy", busy=True))
    bench.add_nodes(C)
    bench.wait(3)
    assert bench.job.message == "1 of 2 executions placed; waiting for a node: bob is busy"


def test_nobody_to_wait_for_is_said(bench):
    bench.submit(job())
    bench.wait(3)
    assert bench.job.message == "waiting for a node: no compute node is known"
