"""The requester's service with real nodes: jobs are checked, and a broken verifier fails one job only."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.errors import InvalidJob, JobFailed
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.node import registry
from bacalhau_p2p.requester.store import EXECUTIONS_AT_ONCE
from bacalhau_p2p.testing.network import open_network
from bacalhau_p2p.verifiers.noop import NoopVerifier

NOOP = {"Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": "hello\n"}}}]}


class BrokenVerifier(NoopVerifier):
    async def verify(self, spec, proposals):
        await trio.lowlevel.checkpoint()
        raise KeyError("Confidence")


async def test_a_verifier_that_raises_anything_fails_its_job_and_the_node_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.VERIFIERS, "broken", lambda context: BrokenVerifier())
    async with open_network(tmp_path, compute_nodes=1) as net:
        job = await net.requester.submit({**NOOP, "Verifier": {"Type": "broken"}})
        with pytest.raises(JobFailed, match="KeyError in this node's broken verifier: 'Confidence'"):
            await job.wait_result(30)
        assert (await (await net.requester.submit(NOOP)).wait_result(30)).stdout == b"hello\n"


async def test_an_input_that_no_node_can_read_is_refused_at_submission(tmp_path):
    url = "data:application/gzip;base64,bm90IGFuIGFyY2hpdmU="
    source = {"Target": "/inputs", "Source": {"Type": "inline", "Params": {"URL": url}}}
    task = {**NOOP["Tasks"][0], "InputSources": [source]}
    async with open_network(tmp_path, compute_nodes=0) as net:
        with pytest.raises(InvalidJob) as refused:
            await net.requester.submit({"Tasks": [task]})
    assert [fault.path for fault in refused.value.faults] == ["Tasks[0].InputSources[0].Source.Params.URL"]


async def test_others_work_while_the_executions_of_a_large_job_are_read(tmp_path):
    async with open_network(tmp_path, compute_nodes=0) as net:
        service = net.requester.requester
        job_id = (await net.requester.submit(NOOP)).id
        store_executions(service, job_id, 5 * EXECUTIONS_AT_ONCE)
        for read in (service.executions, service.execution_records, service.results):
            turns = await turns_of_others(read, job_id)
            assert turns >= 3, read


async def test_a_record_that_cannot_be_read_is_left_out_of_the_records(tmp_path):
    async with open_network(tmp_path, compute_nodes=0) as net:
        service = net.requester.requester
        job_id = (await net.requester.submit(NOOP)).id
        store_executions(service, job_id, 3)
        service._store.db.execute("UPDATE execution SET record = x'ff' WHERE id = 'e-1'")
        assert [each["ID"] for each in await service.execution_records(job_id)] == ["e-0", "e-2"]


def store_executions(service, job_id: JobID, count: int) -> None:
    node, state = PeerID("node"), ExecutionState.BID_REJECTED
    records = [
        Execution(
            id=ExecutionID(f"e-{n}"), job_id=job_id, node_id=node, state=state, created=1.0, modified=2.0
        )
        for n in range(count)
    ]
    service._store.commit(Commit(records=records), delivered=())


async def turns_of_others(call, *args) -> int:
    """How often another task gets its turn during a call."""
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await call(*args)
        nursery.cancel_scope.cancel()
    return turns
