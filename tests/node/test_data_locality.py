"""Whole nodes in one process: jobs run where their data is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bacalhau_p2p.client.jobs import JobHandle
from bacalhau_p2p.errors import JobFailed
from bacalhau_p2p.ipfs.format.cid import CID
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.node import Node
from bacalhau_p2p.testing.network import open_network
from tests.support.waiting import until

SIZE = 1_000_000
LOCAL = {"data_locality": "local"}


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def job(cid: object, **more: object) -> dict[str, object]:
    source = {"Target": "/inputs", "Source": {"Type": "ipfs", "Params": {"CID": str(cid)}}}
    return {"Tasks": [{"Engine": {"Type": "noop"}, "InputSources": [source]}], **more}


async def message_while_queued(handle: JobHandle, node: Node) -> str:
    """The message of the job once it waits for a node."""
    job = node.requester.job
    await until(lambda: job(handle.id).state == JobState.QUEUED)
    return job(handle.id).message


async def test_a_job_runs_where_its_data_is_and_shows_its_size(tmp_path, data):
    async with open_network(tmp_path, **LOCAL) as net:
        holder = net.compute[1]
        cid = CID.parse(await holder.add(data))
        for _ in range(3):
            handle = await net.requester.submit(job(cid))
            await handle.wait_result(20)
            (execution,) = await net.requester.requester.executions(handle.id)
            assert execution.node_id == holder.peer_id
            assert (execution.input_bytes, execution.local_input_bytes) == (SIZE, SIZE)
        assert not await net.compute[0].content.has(cid)


async def test_the_node_that_has_the_data_is_preferred(tmp_path, data):
    async with open_network(tmp_path) as net:
        holder = net.compute[2]
        cid = CID.parse(await holder.add(data))
        for _ in range(3):
            handle = await net.requester.submit(job(cid))
            await handle.wait_result(20)
            executions = {e.node_id: e for e in await net.requester.requester.executions(handle.id)}
            assert [n for n, e in executions.items() if e.state == "Completed"] == [holder.peer_id]
            others = [e for node, e in executions.items() if node != holder.peer_id]
            assert {(e.input_bytes, e.local_input_bytes) for e in others} == {(SIZE, 0)}


async def test_a_job_whose_data_no_node_has_waits_for_it_and_says_so(tmp_path, data):
    async with open_network(tmp_path, compute_nodes=2, **LOCAL) as net:
        cid = CID.parse(await net.requester.add(data))
        handle = await net.requester.submit(job(cid))
        message = await message_while_queued(handle, net.requester)
        assert message.startswith("waiting for a node: ")
        assert message.endswith(" runs only jobs whose inputs are local; /inputs is missing")
        for node in net.compute:
            assert node.peer_id[-8:] in message
        await net.compute[0].export(str(cid), tmp_path / "copy")  # now it has the data
        await handle.wait_result(40)


async def test_a_job_whose_inputs_do_not_fit_is_rejected_before_they_are_fetched(tmp_path, data):
    async with open_network(tmp_path, compute_nodes=1, limits={"disk": "1500kb"}) as net:
        (node,) = net.compute
        cid = CID.parse(await net.requester.add(data))
        message = await message_while_queued(await net.requester.submit(job(cid)), net.requester)
        assert message.endswith(f"{node.peer_id[-8:]} inputs need 2 MB of disk; 1.5 MB is free")
        assert node.content.used == 0
        assert node._compute.machine.capacity.reserved == Resources()


async def test_the_user_sees_why_a_probe_rejects_a_job(tmp_path):
    probe = 'grep -q \'"Name": "wanted"\' || { echo only wanted jobs; exit 1; }'
    async with open_network(tmp_path, compute_nodes=1, probe_exec=probe) as net:
        task = {"Engine": {"Type": "noop"}}
        refused = await net.requester.submit(
            {"Tasks": [{**task, "Timeouts": {"QueueTimeout": 1}}], "Name": "other"}
        )
        with pytest.raises(JobFailed, match="its selection probe refused it: only wanted jobs"):
            await refused.wait_result(20)
        await (await net.requester.submit({"Tasks": [task], "Name": "wanted"})).wait_result(20)


async def test_a_node_that_rejects_stateless_jobs_runs_jobs_with_inputs(tmp_path, data):
    async with open_network(tmp_path, compute_nodes=1, reject_stateless=True) as net:
        message = await message_while_queued(
            await net.requester.submit({"Tasks": [{"Engine": {"Type": "noop"}}]}), net.requester
        )
        assert message.endswith("accepts no jobs without inputs")
        cid = CID.parse(await net.requester.add(data))
        await (await net.requester.submit(job(cid))).wait_result(20)
