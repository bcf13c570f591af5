"""A node in this process offers what a client of its API offers, with the same results."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.client.client import Client
from bacalhau_p2p.client.interface import AnyNode
from bacalhau_p2p.errors import (
    InvalidContent,
    JobNotFinished,
    PathNotFound,
    SettingsError,
    UnknownJob,
)
from bacalhau_p2p.executors.noop import NoopExecutor
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.state import JobState
from bacalhau_p2p.node import open_node
from bacalhau_p2p.settings import Settings
from tests.support.networks.served import JOB, served


@asynccontextmanager
async def either(kind: str, folder: Path) -> AsyncIterator[AnyNode]:
    """A node here, or a client of it."""
    async with served(folder) as (network, url), Client(url) as client:
        yield network.requester if kind == "Node" else client


def quiet(folder: Path, **settings: object) -> Settings:
    """Settings of a node that nobody else finds."""
    return Settings(data_dir=folder, swarm_host="127.0.0.1", swarm_port=0, mdns=False, **settings)


@pytest.fixture(params=["Node", "Client"])
def kind(request) -> str:
    return request.param


async def test_a_job_is_submitted_followed_and_its_result_read(kind: str, tmp_path: Path):
    async with either(kind, tmp_path / "net") as node:
        job = await node.submit({**JOB, "Name": "mine"}, idempotency_token="once")
        assert (await node.submit(JOB, idempotency_token="once")).id == job.id
        with trio.fail_after(60):
            kinds = [event.kind async for event in job.events()]
        assert (kinds[0], kinds[-1]) == (EventKind.SUBMITTED, EventKind.ENDED)
        result = await job.wait_result(timeout=60)
        assert result.stdout == await result.read("stdout") == b"hello\n"
        async with result.open("exitCode") as file:
            assert await file.read(100) == b"0"
        with pytest.raises(PathNotFound):
            await result.read("absent")
        with pytest.raises(InvalidContent, match=r"is not a file$"):
            await result.read("")
        await result.fetch(tmp_path / "fetched")
        assert (tmp_path / "fetched" / "stdout").read_bytes() == b"hello\n"
        assert (await node.job("mine")).id == (await node.job(job.id[:8])).id == job.id
        assert [each.id for each in await node.jobs(id_prefix=job.id[:8])] == [job.id]
        with pytest.raises(UnknownJob):
            await node.job("absent")


async def test_the_events_of_all_jobs_are_iterated(kind: str, tmp_path: Path):
    async with either(kind, tmp_path) as node:
        job = await node.submit({**JOB, "Labels": {"team": "a"}})
        await node.submit(JOB)
        with trio.fail_after(60):
            async for event in node.events(labels=["team=a"], kinds=["Ended"], after=0):
                assert event.job_id == job.id
                break


async def test_content_is_added_and_fetched(kind: str, tmp_path: Path):
    (tmp_path / "data").write_text("data")
    async with either(kind, tmp_path / "net") as node:
        cid = await node.add(str(tmp_path / "data"))
        assert await node.fetch(cid, tmp_path / "copy") == tmp_path / "copy"
    assert (tmp_path / "copy").read_text() == "data"


async def test_nodes_are_listed(kind: str, tmp_path: Path):
    async with either(kind, tmp_path) as node:
        assert len(await node.nodes()) == 2


async def test_a_map_runs_a_job_for_each_input(kind: str, tmp_path: Path):
    def job(number: int) -> dict[str, object]:
        return {"Tasks": [{"Engine": {"Type": "noop", "Params": {"Stdout": str(number)}}}]}

    async with either(kind, tmp_path) as node:
        with trio.fail_after(60):
            assert [result.stdout for result in await node.map(job, range(5), limit=2)] == [
                b"0",
                b"1",
                b"2",
                b"3",
                b"4",
            ]


async def test_a_map_that_is_left_is_stopped_before_its_node_closes(tmp_path: Path):
    nowhere = {**JOB, "Constraints": [{"Key": "zone", "Operator": "=", "Values": ["nowhere"]}]}
    async with open_node(quiet(tmp_path, compute=False)) as node:
        outcomes = node.as_completed(lambda number: nowhere, [1])
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await anext(outcomes)
    async with open_node(quiet(tmp_path, compute=False)) as node:
        (job,) = await node.jobs()
        assert (job.state, job.message) == (JobState.STOPPED, "the map that submitted it was stopped")


class Mine(NoopExecutor):
    engine = "mine"


async def test_a_job_for_an_engine_of_ones_own_is_accepted_at_once(tmp_path: Path):
    async with open_node(quiet(tmp_path), executors=[Mine()]) as node:
        job = await node.submit({"Tasks": [{"Engine": {"Type": "mine"}}]})
        assert (await job.wait_result(timeout=60)).exit_code == 0


async def test_a_node_without_a_requester_takes_no_jobs(tmp_path: Path):
    async with open_node(quiet(tmp_path, requester=False)) as node:
        with pytest.raises(SettingsError, match="takes no jobs"):
            await node.submit(JOB)


async def test_a_wait_has_a_limit(kind: str, tmp_path: Path):
    nowhere = {**JOB, "Constraints": [{"Key": "zone", "Operator": "=", "Values": ["nowhere"]}]}
    async with either(kind, tmp_path) as node:
        job = await node.submit(nowhere)
        with pytest.raises(JobNotFinished, match=r"after 0 s: \w"):
            await job.wait_result(timeout=0)
        await job.cancel()
        assert (await job.wait()).state is JobState.STOPPED
