"""`Client` with a fake node: jobs, results and content. Covers `client`, `on_backend`."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
import trio

from bacalhau_p2p.client.client import Client
from bacalhau_p2p.errors import (
    AmbiguousID,
    ContentError,
    ContentNotFound,
    Fault,
    InvalidCID,
    InvalidContent,
    InvalidJob,
    JobFailed,
    JobNotFinished,
    UnknownJob,
)
from bacalhau_p2p.model.execution import RunOutput
from bacalhau_p2p.model.parsing import job_from_mapping
from bacalhau_p2p.model.state import JobState
from tests.support.servers.fake_node import NODE, FakeNode

NOOP = {"Tasks": [{"Engine": {"Type": "noop"}}]}


def a_folder(where: Path) -> Path:
    (where / "outputs").mkdir(parents=True)
    (where / "stdout").write_bytes(b"hello\n")
    (where / "outputs" / "data.bin").write_bytes(bytes(range(256)) * 4000)
    return where


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    "job",
    [
        NOOP,
        job_from_mapping(NOOP),
        '{"tasks": [{"engine": {"type": "noop"}}]}',
        b"tasks: [engine: {type: noop}]",
    ],
)
async def test_a_job_in_any_form_is_submitted_and_its_result_fetched(
    fake_node: FakeNode, tmp_path: Path, job
):
    source = a_folder(tmp_path / "source")
    output = RunOutput(exit_code=3, stdout=b"hello\n")
    fake_node.on_submit = lambda submitted: fake_node.complete(submitted.id, source, output)
    async with Client(fake_node.url) as client:
        handle = await client.submit(job)
        assert (await handle.status()).spec == job_from_mapping(NOOP)
        result = await handle.wait_result(timeout=10)
        assert (result.exit_code, result.stdout, result.stderr) == (3, b"hello\n", b"")
        assert result.published is not None
        assert result.published.cid == result.cid
        folder = await result.fetch(tmp_path / "fetched")
    assert content_of(folder) == content_of(source)


async def test_waiting_is_one_request(fake_node: FakeNode, tmp_path: Path):
    async with Client(fake_node.url) as client, trio.open_nursery() as nursery:
        handle = await client.submit(NOOP)
        results = []

        async def wait() -> None:
            results.append(await handle.wait_result())

        nursery.start_soon(wait)
        await trio.to_thread.run_sync(fake_node.wait_until, lambda: fake_node.waiting == 1)
        await trio.to_thread.run_sync(fake_node.complete, handle.id, a_folder(tmp_path / "source"))
    assert len(results) == 1
    assert len([path for _, path in fake_node.requests if "wait=" in path]) == 1


async def test_a_job_that_has_not_ended_in_time_raises_its_state(fake_node: FakeNode):
    async with Client(fake_node.url) as client:
        handle = await client.submit(NOOP)
        fake_node.set_state(handle.id, JobState.RUNNING)
        with pytest.raises(JobNotFinished, match=r"is running after 0.01 s"):
            await handle.wait_result(timeout=0.01)


async def test_a_node_that_responds_early_is_not_asked_again_at_once(fake_node: FakeNode, monkeypatch):
    fake_node.respond_early = True
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            fake_node.set_state(handle.id, JobState.STOPPED)

    async with Client(fake_node.url) as client:
        handle = await client.submit(NOOP)
        monkeypatch.setattr(anyio, "sleep", sleep)
        assert (await handle.wait()).state is JobState.STOPPED
    assert pauses == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.STOPPED])
async def test_a_failed_job_raises_its_own_message(fake_node: FakeNode, state):
    fake_node.on_submit = lambda job: fake_node.set_state(job.id, state, "no node has the image")
    async with Client(fake_node.url) as client:
        handle = await client.submit(NOOP)
        with pytest.raises(JobFailed, match=r"^no node has the image"):
            await handle.wait_result()


async def test_a_cancelled_job_is_stopped_with_its_reason(fake_node: FakeNode):
    async with Client(fake_node.url) as client:
        handle = await client.submit(NOOP)
        await handle.cancel("enough")
        job = await handle.wait()
    assert (job.state, job.message) == (JobState.STOPPED, "enough")


async def test_a_submission_whose_response_is_lost_is_repeated_and_makes_one_job(fake_node: FakeNode):
    fake_node.lose_responses = 2
    async with Client(fake_node.url) as client:
        await client.submit(NOOP)
    assert len(fake_node.jobs) == 1
    assert [method for method, _ in fake_node.requests] == ["PUT"] * 3


async def test_the_same_idempotency_token_returns_the_same_job(fake_node: FakeNode):
    async with Client(fake_node.url) as client:
        first = await client.submit(NOOP, idempotency_token="mine")
        second = await client.submit(NOOP, idempotency_token="mine")
        third = await client.submit(NOOP)
    assert first.id == second.id != third.id


async def test_a_prefix_of_an_id_finds_the_job_if_it_is_unique(fake_node: FakeNode):
    for job_id in ("abcdef", "abcxyz"):
        fake_node.add_job(job_id)
    async with Client(fake_node.url) as client:
        assert (await client.job("abcd")).id == "abcdef"
        with pytest.raises(AmbiguousID, match="2 jobs"):
            await client.job("abc")
        with pytest.raises(UnknownJob, match="no job has the id b/c"):
            await client.job("b/c")


async def test_the_latest_jobs_come_first(fake_node: FakeNode):
    for number in range(3):
        fake_node.add_job(f"job-{number}", created=100.0 + number)
    async with Client(fake_node.url) as client:
        assert [job.id for job in await client.jobs(limit=2)] == ["job-2", "job-1"]
        assert [job.id for job in await client.jobs(id_prefix="job-0")] == ["job-0"]


async def test_nodes_are_listed(fake_node: FakeNode):
    async with Client(fake_node.url) as client:
        assert [(node.id, node.requester) for node in await client.nodes()] == [(NODE, True)]


async def test_an_invalid_job_raises_all_faults_before_it_is_sent(fake_node: FakeNode):
    async with Client(fake_node.url) as client:
        with pytest.raises(InvalidJob) as caught:
            await client.submit({"Count": 0, "Tasks": [{"Engine": {"Type": "docker"}}]})
    assert caught.value.faults == (
        Fault("Tasks[0].Engine.Params.Image", "missing"),
        Fault("Count", "must be at least 1, not 0"),
    )
    assert fake_node.requests == []


async def test_faults_that_the_node_finds_have_their_paths(fake_node: FakeNode):
    def refuse(job: object) -> None:
        raise InvalidJob([Fault("Tasks[0].Engine.Type", "unknown engine")])

    fake_node.on_submit = refuse
    async with Client(fake_node.url) as client:
        with pytest.raises(InvalidJob) as caught:
            await client.submit(NOOP)
    assert caught.value.faults == (Fault("Tasks[0].Engine.Type", "unknown engine"),)


async def test_content_is_added_and_fetched(fake_node: FakeNode, tmp_path: Path):
    source = a_folder(tmp_path / "source")
    async with Client(fake_node.url) as client:
        cid = await client.add(source)
        assert await client.fetch(cid, tmp_path / "fetched") == tmp_path / "fetched"
    assert content_of(tmp_path / "fetched") == content_of(source)


async def test_existing_files_are_never_overwritten(fake_node: FakeNode, tmp_path: Path):
    async with Client(fake_node.url) as client:
        cid = await client.add(a_folder(tmp_path / "source"))
        (tmp_path / "fetched").mkdir()
        with pytest.raises(ContentError, match="already exists"):
            await client.fetch(cid, tmp_path / "fetched")


async def test_tampered_or_incomplete_content_is_an_error_and_leaves_nothing(
    fake_node: FakeNode, tmp_path: Path
):
    async with Client(fake_node.url) as client:
        cid = await client.add(a_folder(tmp_path / "source"))
        fake_node.truncate_cars = True
        with pytest.raises(InvalidContent, match="part of"):
            await client.fetch(cid, tmp_path / "fetched")
        fake_node.truncate_cars = False
        victim = next(key for key, block in fake_node.blocks.items() if block == b"hello\n")
        fake_node.blocks[victim] = b"jello\n"
        with pytest.raises(InvalidContent, match="does not match its hash"):
            await client.fetch(cid, tmp_path / "fetched")
    assert names_in(tmp_path) == ["source"]


async def test_unknown_and_invalid_cids_are_different_errors(fake_node: FakeNode, tmp_path: Path):
    async with Client(fake_node.url) as client:
        with pytest.raises(ContentNotFound, match="nobody has"):
            await client.fetch("bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am", tmp_path / "x")
        with pytest.raises(InvalidCID):
            await client.fetch("bafywhat", tmp_path / "x")
        with pytest.raises(ContentError):
            await client.add(tmp_path / "absent")
