"""One message of each kind."""

from __future__ import annotations

from cbor2 import dumps

from bacalhau_p2p.bprotocol import messages
from bacalhau_p2p.bprotocol.outlines import encoded_cid
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.constraints import Constraint
from bacalhau_p2p.model.execution import PublishedResult
from bacalhau_p2p.model.job import JobSpec, SpecConfig, Task
from bacalhau_p2p.model.node import ComputeInfo, NodeInfo
from bacalhau_p2p.model.outline import JobOutline
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import ComputeState, ExecutionState
from tests.support.results import result_cid

JOB, EXECUTION = JobID("j-1"), ExecutionID("e-1")
OF_EXECUTION = {"job_id": JOB, "execution_id": EXECUTION}
ADDRESS = "/ip4/1.2.3.4/tcp/5/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
SPEC = JobSpec(count=3, tasks=(Task(engine=SpecConfig(type="noop", params={"ExitCode": 3})),))
LARGE = SPEC.replace(constraints=(Constraint(key="zone", operator="=", values=("a",)),))
"""Large enough for an example."""
ENCODED = dumps(LARGE.to_wire())

EXAMPLES: list[messages.Message] = [
    messages.JobAnnounced(
        job_id=JOB,
        spec=SPEC,
        addresses=(ADDRESS,),
        bids_wanted=9,
        round=2,
        deadline=1.5e9,
    ),
    messages.JobClosed(job_id=JOB, reason="placed"),
    messages.NodeInfoPublished(
        info=NodeInfo(
            id=PeerID("p"),
            labels={"a": "b"},
            compute=ComputeInfo(engines=("wasm",), max_capacity=Resources(cpu=2, memory=2**40)),
        )
    ),
    messages.Bid(**OF_EXECUTION, round=1, reserved_for=30, load=0.25),
    messages.BidDeclined(job_id=JOB, round=1, reason="is busy", busy=True),
    messages.ResultProposed(**OF_EXECUTION, sealed=b"\x00\xff"),
    messages.ResultPublished(
        **OF_EXECUTION,
        result=PublishedResult(
            cid=result_cid("result"), location=SpecConfig(type="ipfs", params={"Providers": ["/x"]})
        ),
    ),
    messages.ExecutionFailed(**OF_EXECUTION, reason="no such image", permanent=True),
    messages.Heartbeat(
        executions=(messages.ExecutionProgress(execution_id=EXECUTION, state=ComputeState.RUNNING),)
    ),
    messages.BidAccepted(**OF_EXECUTION),
    messages.BidRejected(**OF_EXECUTION, reason="others were better"),
    messages.ResultAccepted(**OF_EXECUTION),
    messages.ResultRejected(**OF_EXECUTION, reason="differs"),
    messages.CancelExecution(**OF_EXECUTION, reason="the job is Stopped"),
    messages.Reconcile(
        executions=(
            messages.ExecutionView(job_id=JOB, execution_id=EXECUTION, state=ExecutionState.BID_ACCEPTED),
        )
    ),
    messages.Ack(ids=(b"0" * 16, b"1" * 16)),
    messages.JobOutlined(
        job_id=JOB,
        outline=JobOutline.of(LARGE, cid=encoded_cid(ENCODED), size=len(ENCODED)),
        addresses=(ADDRESS,),
        bids_wanted=9,
        round=2,
        chance=0.25,
        deadline=1.5e9,
    ),
    messages.SpecWanted(job_id=JOB, spec_cid=encoded_cid(ENCODED)),
    messages.SpecDelivered(job_id=JOB, spec=ENCODED),
    messages.Greeting(info=NodeInfo(id=PeerID("p")), network="main"),
]
