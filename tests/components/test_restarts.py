"""Nodes that stop and start again forget nothing that they promised, and do nothing twice.

Covers the services of both components, `requester.service` and `compute.service`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from bacalhau_p2p.executors.interface import RunRequest
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.node import Node, open_node
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.memory.network import MemoryNetwork

JOB = {"Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": "hello\n"}}}]}


class Held(NoopExecutor):
    """Runs when `go` is set."""

    def __init__(self, *, going: bool = False, survives: bool = False) -> None:
        self.started, self.go = trio.Event(), trio.Event()
        self.runs, self.reattached = 0, 0
        self.survives = survives
        if going:
            self.go.set()

    async def run(self, request: RunRequest) -> RunOutput:
        self.runs += 1
        self.started.set()
        await self.go.wait()
        return await super().run(request)

    @property
    def outlives_node(self) -> bool:
        return self.survives

    async def reattach(self, request: RunRequest) -> RunOutput | None:
        self.reattached += 1
        return await super().run(request) if self.survives else None


class Network:
    """Starts nodes by name. A node keeps its identity and data directory when it starts again."""

    def __init__(self, folder: Path) -> None:
        self.memory_network = MemoryNetwork(notice_after=0.1)
        self.folder = folder
        self.identities: dict[str, Identity] = {}

    @asynccontextmanager
    async def node(self, name: str, *executors: NoopExecutor, requester: bool = False) -> AsyncIterator[Node]:
        identity = self.identities.setdefault(name, Identity.generate())
        settings = Settings(
            data_dir=self.folder / name, requester=requester, compute=not requester, engines=("noop",)
        )
        async with (
            self.memory_network.open(identity) as transport,
            open_node(settings, executors=executors, transport=transport, identity=identity) as node,
        ):
            yield node


@pytest.fixture
def network(tmp_path):
    return Network(tmp_path)


async def test_a_restarted_compute_node_runs_its_execution_again_and_delivers(network):
    first, second = Held(), Held(going=True)
    with trio.fail_after(30):
        async with network.node("requester", requester=True) as requester:
            async with network.node("compute", first):
                await requester.wait_for_compute_nodes(1)
                job = await requester.submit(JOB)
                await first.started.wait()
            async with network.node("compute", second):
                result = await job.wait_result()
            assert (result.stdout, len(await requester.requester.executions(job.id))) == (b"hello\n", 1)
            assert (first.runs, second.runs) == (1, 1)


async def test_a_run_that_outlived_its_node_is_not_repeated(network):
    first, second = Held(), Held(survives=True)
    with trio.fail_after(30):
        async with network.node("requester", requester=True) as requester:
            async with network.node("compute", first) as compute:
                await requester.wait_for_compute_nodes(1)
                job = await requester.submit(JOB)
                await first.started.wait()
                executions = compute.settings.data_dir / "executions"
                (folder,) = executions.iterdir()
            # The node stopped in order and removed its folders; a killed one leaves them to the container.
            (folder / "results").mkdir(parents=True)
            async with network.node("compute", second):
                result = await job.wait_result()
            assert result.stdout == b"hello\n"
            assert (second.reattached, second.runs) == (1, 0)


async def test_a_result_waits_for_a_requester_that_is_away(network):
    held = Held()
    with trio.fail_after(30):
        async with network.node("compute", held) as compute:
            async with network.node("requester", requester=True) as requester:
                await requester.wait_for_compute_nodes(1)
                job_id = (await requester.submit(JOB)).id
                await held.started.wait()
            held.go.set()
            machine = compute._compute.machine
            while not any(e.sealed for e in machine.executions.values()):
                await compute._compute._ticked.wait()
            async with network.node("requester", requester=True) as requester:
                result = await (await requester.job(job_id)).wait_result()
                assert result.stdout == b"hello\n"
                assert held.runs == 1


async def test_a_restarted_requester_goes_on_with_the_history_of_a_job(network):
    held = Held()
    with trio.fail_after(30):
        async with network.node("compute", held):
            async with network.node("requester", requester=True) as requester:
                await requester.wait_for_compute_nodes(1)
                job = await requester.submit(JOB)
                await held.started.wait()
                before = (await requester.requester.history(job.id)).events
            async with network.node("requester", requester=True) as requester:
                held.go.set()
                events = [event async for event in (await requester.job(job.id)).events()]
    assert events[: len(before)] == before
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    kinds = [event.kind for event in events]
    assert kinds.count(EventKind.RESUMED) == 1
    assert (events[-1].kind, events[-1].state) == (EventKind.ENDED, "Completed")


async def test_pins_of_forgotten_executions_are_removed_at_the_start(network, tmp_path):
    (tmp_path / "result").write_text("of an execution that was forgotten\n")
    async with network.node("compute") as node:
        added = await node.content.add(tmp_path / "result", pin_owner="execution:e-gone")
        await node.content.pin(added.cid, "published:e-gone")
    async with network.node("compute") as node:
        assert [pin.owner for pin in await node.content.pins(added.cid)] == ["published:e-gone"]


async def test_a_drained_node_hands_its_work_to_others_at_once(network):
    held, other = Held(), Held(going=True)
    with trio.fail_after(30):
        async with network.node("requester", requester=True) as requester:
            async with network.node("held", held) as stopping:
                await requester.wait_for_compute_nodes(1)
                job = await requester.submit(JOB)
                await held.started.wait()
                async with network.node("other", other):
                    await requester.wait_for_compute_nodes(2)
                    await stopping.drain(0)
                    result = await job.wait_result()
            states = {e.node_id: e.state for e in await requester.requester.executions(job.id)}
            assert states == {
                network.identities["held"].peer_id: ExecutionState.LOST,
                network.identities["other"].peer_id: ExecutionState.COMPLETED,
            }
            assert result.stdout == b"hello\n"


async def test_draining_waits_for_what_runs(network):
    held = Held()
    with trio.fail_after(30):
        async with (
            network.node("requester", requester=True) as requester,
            network.node("held", held) as stopping,
        ):
            await requester.wait_for_compute_nodes(1)
            job = await requester.submit(JOB)
            await held.started.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stopping.drain, 20)
                await trio.testing.wait_all_tasks_blocked()
                held.go.set()
            assert (await job.wait_result()).stdout == b"hello\n"


async def test_a_repeated_submission_is_one_job_and_is_answered_when_it_is_committed(network):
    async with network.node("requester", requester=True) as requester:
        answers: list[str] = []

        async def submit() -> None:
            job = await requester.submit(JOB, idempotency_token="token")
            assert requester.requester.job(job.id).id == job.id, "answered before it was committed"
            answers.append(job.id)

        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await submit()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(submit)
        (job,) = requester.requester.jobs(limit=10).jobs
        assert answers == [job.id] * 3


async def test_two_submissions_at_once_with_one_token_are_answered_when_the_job_is_committed(network):
    async with network.node("requester", requester=True) as requester:

        async def submit() -> None:
            job = await requester.submit(JOB, idempotency_token="token")
            assert requester.requester.job(job.id).id == job.id, "answered before it was committed"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit)
            nursery.start_soon(submit)
        assert len(requester.requester.jobs(limit=10).jobs) == 1


async def test_no_message_is_left_in_flight_after_a_job(network):
    with trio.fail_after(30):
        async with (
            network.node("requester", requester=True) as requester,
            network.node("compute", Held(going=True)) as compute,
        ):
            await requester.wait_for_compute_nodes(1)
            await (await requester.submit(JOB)).wait_result()
            await requester.messenger.wait_acknowledged(10)
            await compute.messenger.wait_acknowledged(10)
            assert (requester.messenger.in_flight, compute.messenger.in_flight) == (0, 0)
