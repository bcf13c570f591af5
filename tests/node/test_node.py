"""Whole nodes in one process, from the submission of a job to its end.

Covers `node`, `assembly`, `content_assembly`, `requester_assembly`, `compute_assembly`, `networking`,
`backend`, `ids` and `testing.network`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio

from bacalhau_p2p.errors import (
    AmbiguousID,
    ContentNotFound,
    DiskFull,
    ExecutorError,
    InvalidJob,
    JobFailed,
    SettingsError,
    UnknownNode,
)
from bacalhau_p2p.executors.interface import Executor, RunRequest
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.ipfs.store.block_store import BlockStore
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.job import JobSpec, SpecConfig, Task
from bacalhau_p2p.model.resources import Resources
from bacalhau_p2p.model.state import ExecutionState, JobState
from bacalhau_p2p.node import Node, open_node
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.testing.network import open_network
from bacalhau_p2p.transports.memory.links import LinkConditions
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.support.waiting import until


def noop(**job: object) -> dict[str, object]:
    task = {"Engine": {"Type": "noop", "Params": {"Stdout": "hello\n"}}, **job.pop("task", {})}
    return {"Tasks": [task], **job}


class Scripted(NoopExecutor):
    """A no-op engine that first calls `act`. `runs` counts its runs."""

    def __init__(self, act: Callable[[RunRequest], object]) -> None:
        self.act = act
        self.runs = 0
        self.stopped = trio.Event()

    async def run(self, request: RunRequest) -> RunOutput:
        self.runs += 1
        try:
            result = self.act(request)
            if result is not None:
                await result
        except trio.Cancelled:
            self.stopped.set()
            raise
        return await super().run(request)


class Liar(NoopExecutor):
    """Returns another output than the honest engine."""

    async def run(self, request: RunRequest) -> RunOutput:
        output = await super().run(request)
        (request.results / "stdout").write_bytes(b"lie\n")
        return output


def raise_(error: Exception) -> Callable[[RunRequest], object]:
    def act(request: RunRequest) -> object:
        raise error

    return act


def idle(node: Node) -> bool:
    """Whether nothing of any job is left on a compute node, apart from published results."""
    machine = node._compute.machine
    folders = list((node.settings.data_dir / "executions").iterdir())
    return machine.capacity.reserved == Resources() and machine.active == 0 and not folders


@asynccontextmanager
async def one_more_node(
    memory_network: MemoryNetwork,
    folder: Path,
    *,
    identity: Identity | None = None,
    executors: Sequence[Executor] = (),
    **options: object,
) -> AsyncIterator[Node]:
    """A node beside those of `open_network`."""
    identity = identity or Identity.generate()
    settings = Settings(data_dir=folder, **{"engines": ("noop",), **options})
    async with (
        memory_network.open(identity) as transport,
        open_node(settings, executors=executors, transport=transport, identity=identity) as node,
    ):
        yield node


async def test_a_job_runs_on_as_many_nodes_as_requested_and_its_result_can_be_fetched(tmp_path):
    async with open_network(tmp_path) as net:
        job = await net.requester.submit(noop(Count=3))
        result = await job.wait_result(30)
        assert {execution.node_id for execution in result.executions} == {n.peer_id for n in net.compute}
        assert (result.exit_code, result.stdout) == (0, b"hello\n")
        folder = await result.fetch(tmp_path / "results")
        assert {path.name: path.read_text() for path in folder.iterdir()} == {
            "stdout": "hello\n",
            "stderr": "",
            "exitCode": "0",
        }
        await until(lambda: all(idle(node) for node in net.compute))


@pytest.mark.parametrize("power_safe", [True, False])
async def test_with_power_safe_a_published_result_is_synced_to_disk(tmp_path, monkeypatch, power_safe):
    synced = []
    monkeypatch.setattr(BlockStore, "sync", lambda store, root: synced.append(str(root)))
    async with open_network(tmp_path, compute_nodes=1, power_safe=power_safe) as net:
        result = await (await net.requester.submit(noop())).wait_result(30)
    assert synced == ([str(result.cid)] if power_safe else [])


async def test_a_non_zero_exit_code_is_a_result(tmp_path):
    async with open_network(tmp_path, compute_nodes=1) as net:
        job = await net.requester.submit(
            noop(task={"Engine": {"Type": "noop", "Params": {"ExitCode": 7, "Stderr": "no\n"}}})
        )
        result = await job.wait_result(30)
        assert (result.exit_code, result.stderr) == (7, b"no\n")


async def test_a_result_that_differs_from_two_equal_ones_is_rejected(tmp_path):
    async with open_network(tmp_path, executors={1: [Liar()]}) as net:
        spec = noop(Count=3, Verifier={"Type": "deterministic", "Params": {"Confidence": 2}})
        result = await (await net.requester.submit(spec)).wait_result(30)
        states = {e.node_id: e.state for e in await net.requester.requester.executions(result.job.id)}
        assert states == {
            net.compute[0].peer_id: ExecutionState.COMPLETED,
            net.compute[1].peer_id: ExecutionState.RESULT_REJECTED,
            net.compute[2].peer_id: ExecutionState.COMPLETED,
        }
        assert result.stdout == b"hello\n"
        await until(lambda: all(idle(node) for node in net.compute))


async def test_a_permanent_failure_ends_the_job_and_its_message_starts_with_the_cause(tmp_path):
    broken = [Scripted(raise_(ExecutorError("image x: not found", permanent=True)))]
    async with open_network(tmp_path, compute_nodes=1, executors={0: broken}) as net:
        job = await net.requester.submit(noop())
        with pytest.raises(JobFailed, match=r"^image x: not found"):
            await job.wait_result(30)
        assert broken[0].runs == 1


async def test_a_node_that_fails_is_replaced_by_another(tmp_path):
    broken = [Scripted(raise_(ExecutorError("disk is slow today")))]
    async with open_network(tmp_path, compute_nodes=2, executors={0: broken}) as net:
        job = await net.requester.submit(noop(Count=1, Deal={"MinBids": 2}))
        result = await job.wait_result(30)
        assert result.executions[0].node_id == net.compute[1].peer_id


class Engine(NoopExecutor):
    """One engine that all nodes use, and that may stop."""

    stopped: str | None = None

    async def unavailable(self) -> str | None:
        return self.stopped

    async def prepare(self, request: RunRequest) -> None:
        if self.stopped:
            raise ExecutorError(self.stopped)


async def test_a_job_whose_engine_stops_everywhere_waits_and_completes_when_it_runs_again(tmp_path):
    engine = Engine()
    executors = {number: [engine] for number in range(3)}
    async with open_network(tmp_path, compute_nodes=3, executors=executors) as net:
        engine.stopped = "no engine runs at /run/engine.sock"
        job = await net.requester.submit(noop())
        service = net.requester.requester
        await until(lambda: not any(node._offers.offer.engines for node in net.compute), seconds=30)
        assert not service.job(job.id).state.terminal
        engine.stopped = None
        for node in net.compute:
            await node._offers.check()
        await job.wait_result(30)
        states = {execution.state for execution in await service.executions(job.id)}
        assert ExecutionState.FAILED not in states


async def test_a_bug_in_an_adapter_fails_the_execution_but_not_the_node(tmp_path):
    broken = [Scripted(raise_(KeyError("a bug")))]
    async with open_network(tmp_path, compute_nodes=1, executors={0: broken}) as net:
        job = await net.requester.submit(noop())
        with pytest.raises(JobFailed, match="KeyError in this node's run step: 'a bug'"):
            await job.wait_result(30)
        broken[0].act = lambda request: None
        await (await net.requester.submit(noop())).wait_result(30)


async def test_cancelling_a_job_stops_its_execution(tmp_path):
    started = trio.Event()

    async def hang() -> None:
        started.set()
        await trio.sleep_forever()

    endless = Scripted(lambda request: hang())
    async with open_network(tmp_path, compute_nodes=1, executors={0: [endless]}) as net:
        job = await net.requester.submit(noop())
        with trio.fail_after(30):
            await started.wait()
            await job.cancel("changed my mind")
            await endless.stopped.wait()
        status = await job.status()
        assert (status.state, status.message) == (JobState.STOPPED, "changed my mind")
        await until(lambda: idle(net.compute[0]))


async def test_a_job_that_no_node_can_run_fails_after_its_queue_timeout(tmp_path):
    async with open_network(tmp_path, compute_nodes=1) as net:
        impossible = noop(task={"Resources": {"CPU": "9000"}, "Timeouts": {"QueueTimeout": 1}})
        job = await net.requester.submit(impossible)
        with pytest.raises(JobFailed, match=r"queue timeout of 1 s.*too small for the requested resources"):
            await job.wait_result(30)


async def test_a_node_with_a_full_disk_takes_no_jobs(tmp_path):
    memory_network = MemoryNetwork()
    async with (
        open_network(tmp_path, compute_nodes=0, memory_network=memory_network) as net,
        one_more_node(memory_network, tmp_path / "full", min_free_disk="9999TB") as node,
    ):
        await net.requester.wait_for_compute_nodes(1)
        with pytest.raises(DiskFull, match="this node takes no jobs now: it has almost no free disk"):
            await node.submit(noop())
        job = await net.requester.submit(noop(task={"Timeouts": {"QueueTimeout": 1}}))
        with pytest.raises(JobFailed, match="has almost no free disk"):
            await job.wait_result(30)


async def test_a_job_waits_for_a_node_to_join(tmp_path):
    memory_network = MemoryNetwork()
    async with open_network(tmp_path, compute_nodes=0, memory_network=memory_network) as net:
        job = await net.requester.submit(noop())
        queued = await job.wait(1)
        assert (queued.state, queued.message) == (
            JobState.QUEUED,
            "waiting for a node: no compute node is known",
        )
        async with one_more_node(memory_network, tmp_path / "late", requester=False) as late:
            result = await job.wait_result(30)
            assert result.executions[0].node_id == late.peer_id


async def test_a_node_that_leaves_during_a_run_is_replaced(tmp_path):
    memory_network = MemoryNetwork(notice_after=0.1)
    started = trio.Event()

    async def hang() -> None:
        started.set()
        await trio.sleep_forever()

    async with open_network(tmp_path, compute_nodes=1, memory_network=memory_network) as net:
        endless = [Scripted(lambda request: hang())]
        with trio.fail_after(60):
            async with one_more_node(
                memory_network, tmp_path / "leaver", requester=False, executors=endless
            ) as leaver:
                await net.requester.wait_for_compute_nodes(2)
                job = await net.requester.submit(noop(Count=2))
                await started.wait()
            # One slot is open again. The other node already runs the job, so it needs a third one.
            async with one_more_node(memory_network, tmp_path / "newcomer", requester=False) as newcomer:
                result = await job.wait_result(50)
        states = {e.node_id: e.state for e in await net.requester.requester.executions(job.id)}
        assert states[leaver.peer_id] is ExecutionState.LOST
        assert {e.node_id for e in result.executions} == {net.compute[0].peer_id, newcomer.peer_id}


@pytest.mark.parametrize("seed", range(3))
async def test_jobs_complete_over_links_that_lose_repeat_and_reorder_messages(tmp_path, seed):
    memory_network = MemoryNetwork(random=Random(seed))
    async with open_network(tmp_path, memory_network=memory_network) as net:
        memory_network.set_conditions(LinkConditions(loss=0.2, repetition=0.2, reordering=0.3, jitter=0.02))
        jobs = [await net.requester.submit(noop(Count=2)) for _ in range(4)]
        for job in jobs:
            assert len((await job.wait_result(60)).executions) == 2
        memory_network.set_conditions(LinkConditions())
        await until(lambda: all(idle(node) for node in net.compute))


async def test_a_restarted_requester_continues_its_jobs(tmp_path):
    memory_network = MemoryNetwork()
    identity = Identity.generate()
    restarted = partial(
        one_more_node, memory_network, tmp_path / "restarted", identity=identity, compute=False, engines=()
    )
    async with restarted() as node:
        job = await node.submit(noop(), idempotency_token="once")
        again = await node.submit(noop(), idempotency_token="once")
        assert again.id == job.id
    async with (
        open_network(tmp_path, compute_nodes=1, memory_network=memory_network),
        restarted() as node,
    ):
        assert (await node.submit(noop(), idempotency_token="once")).id == job.id
        result = await (await node.job(job.id[:8])).wait_result(30)
        assert result.stdout == b"hello\n"


async def test_inputs_are_fetched_by_cid_from_the_requester(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("data\n")
    seen: list[str] = []
    reader = Scripted(lambda request: seen.append((request.inputs[0].path / "a.txt").read_text()))
    async with open_network(tmp_path, compute_nodes=1, executors={0: [reader]}) as net:
        cid = await net.requester.add(source)
        inputs = [{"Target": "/inputs", "Source": {"Type": "ipfs", "Params": {"CID": str(cid)}}}]
        await (await net.requester.submit(noop(task={"InputSources": inputs}))).wait_result(30)
        assert seen == ["data\n"]


async def test_a_job_fails_with_the_cid_that_nobody_has(tmp_path):
    absent = "bafkreih2bk74eu5axngebs6vftmmkcaqboysjjy726xzy5hksnqmfgw5fy"
    async with open_network(tmp_path, compute_nodes=1, content_timeout=0.5) as net:
        inputs = [{"Target": "/inputs", "Source": {"Type": "ipfs", "Params": {"CID": absent}}}]
        job = await net.requester.submit(noop(task={"InputSources": inputs}))
        with pytest.raises(JobFailed, match=absent):
            await job.wait_result(30)
        with pytest.raises(ContentNotFound, match=absent):
            await net.requester.export(absent, tmp_path / "out")


async def test_only_allowed_local_folders_can_be_inputs(tmp_path):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "a.txt").write_text("here\n")
    seen: list[str] = []
    reader = Scripted(lambda request: seen.append((request.inputs[0].path / "a.txt").read_text()))

    def job(path: Path) -> dict[str, object]:
        source = {"Type": "localDirectory", "Params": {"SourcePath": str(path)}}
        return noop(
            task={
                "InputSources": [{"Target": "/inputs", "Source": source}],
                "Timeouts": {"QueueTimeout": 1},
            }
        )

    async with open_network(
        tmp_path, compute_nodes=1, executors={0: [reader]}, allow_local_paths=(str(allowed),)
    ) as net:
        await (await net.requester.submit(job(allowed))).wait_result(30)
        assert seen == ["here\n"]
        with pytest.raises(JobFailed, match=r"InputSources\[0\].Source.Params.SourcePath"):
            await (await net.requester.submit(job(tmp_path))).wait_result(30)


async def test_an_invalid_job_is_rejected_with_all_faults(tmp_path):
    async with open_network(tmp_path, compute_nodes=0) as net:
        with pytest.raises(InvalidJob) as refused:
            await net.requester.submit({"Count": 0, "Tasks": [{"Engine": {"Type": "docker", "Params": {}}}]})
        assert {fault.path for fault in refused.value.faults} == {"Count", "Tasks[0].Engine.Params.Image"}
        with pytest.raises(InvalidJob, match="unknown engine 'dokcer'"):
            await net.requester.submit({"Tasks": [{"Engine": {"Type": "dokcer"}}]})
        with pytest.raises(InvalidJob, match=r"Verifier.*Confidence"):
            await net.requester.submit(
                noop(Count=2, Verifier={"Type": "deterministic", "Params": {"Confidence": 5}})
            )
        large = Task(engine=SpecConfig(type="noop", params={"Stdout": "x" * 300_000}))
        with pytest.raises(InvalidJob, match="the job is too large"):
            await net.requester.submit(JobSpec(tasks=(large,)))
        assert net.requester.requester.jobs(limit=10).jobs == []


async def test_a_node_is_found_by_its_id_and_by_its_beginning_and_its_end(tmp_path):
    async with open_network(tmp_path, compute_nodes=1) as net:
        wanted = net.requester.peer_id
        for text in (wanted, wanted[:-1], wanted[-8:]):
            assert net.requester.resolve_node(text).info.id == wanted
        with pytest.raises(UnknownNode):
            net.requester.resolve_node(wanted[8:-8])
        with pytest.raises(AmbiguousID, match="several nodes match 12D3KooW"):
            net.requester.resolve_node("12D3KooW")


async def test_a_node_without_a_requester_rejects_jobs(tmp_path):
    async with open_network(tmp_path, compute_nodes=1) as net:
        with pytest.raises(SettingsError, match="takes no jobs"):
            await net.compute[0].submit(noop())


async def test_a_node_with_both_components_runs_its_own_jobs(tmp_path):
    async with one_more_node(MemoryNetwork(), tmp_path / "alone") as node:
        result = await (await node.submit(noop())).wait_result(30)
        assert result.executions[0].node_id == node.peer_id


async def test_nodes_of_another_network_are_ignored(tmp_path):
    memory_network = MemoryNetwork()
    async with (
        one_more_node(memory_network, tmp_path / "other", network="other", requester=False),
        open_network(tmp_path, compute_nodes=1, memory_network=memory_network) as net,
    ):
        await (await net.requester.submit(noop())).wait_result(30)
        known = {known.info.id for known in net.requester.known_nodes()}
        assert known == {net.requester.peer_id, net.compute[0].peer_id}


async def test_the_noop_publisher_leaves_only_the_output_of_a_job(tmp_path):
    async with open_network(tmp_path, compute_nodes=1) as net:
        job = await net.requester.submit(noop(task={"Publisher": {"Type": "noop"}}))
        result = await job.wait_result(30)
        assert (result.stdout, result.published.location.type) == (b"hello\n", "noop")
        await until(lambda: idle(net.compute[0]))
