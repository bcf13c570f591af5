from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from bacalhau_p2p.cli.connection import Connection
from bacalhau_p2p.client.client import Client
from bacalhau_p2p.errors import (
    AmbiguousID,
    ApiError,
    ContentError,
    ContentNotFound,
    Fault,
    InvalidCID,
    InvalidContent,
    InvalidJob,
    JobFailed,
    JobNotFinished,
    NodeUnavailable,
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
async def test_a_job_in_any_form_is_submitted_waited_for_and_its_result_fetched(
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


async def test_waiting_is_one_request_however_long_the_job_takes(fake_node: FakeNode, tmp_path: Path):
    async with Client(fake_node.url) as client, trio.open_nursery() as nursery:
        handle = await client.submit(NOOP)
        results = []

        async def wait() -> None:
            results.append(await handle.wait_result())

        nursery.start_soon(wait)
        with trio.fail_after(5):
            while not any("wait=" in path for _, path in fake_node.requests):
                await trio.lowlevel.checkpoint()
        await trio.to_thread.run_sync(fake_node.complete, handle.id, a_folder(tmp_path / "source"))
    assert len(results) == 1
    assert len([path for _, path in fake_node.requests if "wait=" in path]) == 1


async def test_job_that_has_not_ended_in_time_is_said_to_be_what_it_is(fake_node: FakeNode):
    async with Client(fake_node.url) as client:
        handle = await client.submit(NOOP)
        fake_node.set_state(handle.id, JobState.RUNNING)
        with pytest.raises(JobNotFinished, match=r"is running after 0.1 s"):
            await handle.wait_result(timeout=0.1)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.STOPPED])
async def test_failed_job_raises_its_own_message(fake_node: FakeNode, state):
    fake_node.on_submit = lambda job: fake_node.set_state(job.id, state, "no node has the image")
    async with Client(fake_node.url) as client:
        handle = await client.submit(NOOP)
        with pytest.raises(JobFailed, match=r"^no node has the image"):
            await handle.wait_result()


async def test_cancelled_job_is_stopped_with_its_reason(fake_node: FakeNode):
    async with Client(fake_node.url) as client:
        handle = await client.submit(NOOP)
        await handle.cancel("enough")
        job = await handle.wait()
    assert (job.state, job.message) == (JobState.STOPPED, "enough")


async def test_submission_whose_answer_was_lost_is_said_again_and_makes_one_job(fake_node: FakeNode):
    fake_node.lose_answers = 2
    async with Client(fake_node.url) as client:
        await client.submit(NOOP)
    assert len(fake_node.jobs) == 1
    assert [method for method, _ in fake_node.requests] == ["PUT"] * 3


async def test_submission_with_the_same_token_gives_the_same_job(fake_node: FakeNode):
    async with Client(fake_node.url) as client:
        first = await client.submit(NOOP, idempotency_token="mine")
        second = await client.submit(NOOP, idempotency_token="mine")
        third = await client.submit(NOOP)
    assert first.id == second.id != third.id


async def test_id_may_be_cut_short_while_it_is_clear(fake_node: FakeNode):
    for job_id in ("abcdef", "abcxyz"):
        fake_node.add_job(job_id)
    async with Client(fake_node.url) as client:
        assert (await client.job("abcd")).id == "abcdef"
        with pytest.raises(AmbiguousID, match="2 jobs"):
            await client.job("abc")
        with pytest.raises(UnknownJob, match="no job has the id b/c"):
            await client.job("b/c")


async def test_latest_jobs_come_first(fake_node: FakeNode):
    for number in range(3):
        fake_node.add_job(f"job-{number}", created=100.0 + number)
    async with Client(fake_node.url) as client:
        assert [job.id for job in await client.jobs(limit=2)] == ["job-2", "job-1"]
        assert [job.id for job in await client.jobs(id_prefix="job-0")] == ["job-0"]


async def test_nodes_are_listed(fake_node: FakeNode):
    async with Client(fake_node.url) as client:
        assert [(node.id, node.requester) for node in await client.nodes()] == [(NODE, True)]


async def test_invalid_job_is_refused_with_all_faults_before_it_is_sent(fake_node: FakeNode):
    async with Client(fake_node.url) as client:
        with pytest.raises(InvalidJob) as caught:
            await client.submit({"Count": 0, "Tasks": [{"Engine": {"Type": "docker"}}]})
    assert caught.value.faults == (
        Fault("Tasks[0].Engine.Params.Image", "missing"),
        Fault("Count", "must be at least 1"),
    )
    assert fake_node.requests == []


async def test_faults_that_the_node_finds_arrive_by_path(fake_node: FakeNode):
    def refuse(job: object) -> None:
        raise InvalidJob([Fault("Tasks[0].Engine.Type", "unknown engine")])

    fake_node.on_submit = refuse
    async with Client(fake_node.url) as client:
        with pytest.raises(InvalidJob) as caught:
            await client.submit(NOOP)
    assert caught.value.faults == (Fault("Tasks[0].Engine.Type", "unknown engine"),)


async def test_content_goes_up_and_comes_down(fake_node: FakeNode, tmp_path: Path):
    source = a_folder(tmp_path / "source")
    async with Client(fake_node.url) as client:
        cid = await client.add(source)
        assert await client.fetch(cid, tmp_path / "fetched") == tmp_path / "fetched"
    assert content_of(tmp_path / "fetched") == content_of(source)


async def test_a_node_that_takes_content_for_something_else_is_not_believed(
    fake_node: FakeNode, tmp_path: Path
):
    other = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"
    fake_node.raw_answer = 200, b'{"CID": "%s"}' % other.encode()
    async with Client(fake_node.url) as client:
        with pytest.raises(ApiError, match=f"for {other}, but it is bafy"):
            await client.add(a_folder(tmp_path / "source"))
    with (
        Connection("127.0.0.1", fake_node.port) as connection,
        pytest.raises(ApiError, match=f"for {other}, but it is bafy"),
    ):
        await trio.to_thread.run_sync(connection.add, tmp_path / "source")


async def test_content_is_never_written_over_what_is_there(fake_node: FakeNode, tmp_path: Path):
    async with Client(fake_node.url) as client:
        cid = await client.add(a_folder(tmp_path / "source"))
        (tmp_path / "fetched").mkdir()
        with pytest.raises(ContentError, match="exists already"):
            await client.fetch(cid, tmp_path / "fetched")


async def test_tampered_or_incomplete_content_is_refused_and_leaves_nothing(
    fake_node: FakeNode, tmp_path: Path
):
    async with Client(fake_node.url) as client:
        cid = await client.add(a_folder(tmp_path / "source"))
        fake_node.truncate_cars = True
        with pytest.raises(InvalidContent, match="only a part"):
            await client.fetch(cid, tmp_path / "fetched")
        fake_node.truncate_cars = False
        victim = next(key for key, block in fake_node.blocks.items() if block == b"hello\n")
        fake_node.blocks[victim] = b"jello\n"
        with pytest.raises(InvalidContent, match="does not match its hash"):
            await client.fetch(cid, tmp_path / "fetched")
    assert names_in(tmp_path) == ["source"]


async def test_unknown_and_malformed_cids_are_told_apart(fake_node: FakeNode, tmp_path: Path):
    async with Client(fake_node.url) as client:
        with pytest.raises(ContentNotFound, match="nobody has"):
            await client.fetch("bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am", tmp_path / "x")
        with pytest.raises(InvalidCID):
            await client.fetch("bafywhat", tmp_path / "x")
        with pytest.raises(ContentError):
            await client.add(tmp_path / "absent")


async def test_nobody_listening_is_said_with_the_address():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with Client(url + "/") as client:
            with pytest.raises(NodeUnavailable, match=f"^no node listens at {url}$"):
                await client.nodes()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:1234"])
async def test_address_that_is_none_is_an_api_error(url: str):
    with pytest.raises(ApiError, match="is not the address of a node"):
        async with Client(url) as client:
            await client.nodes()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, b"<html>"), "is not a node of ours"),
        ((200, b'{"Items": [{"ID": 1}]}'), "cannot be understood"),
        ((200, b"{}"), "cannot be understood"),
        ((503, b"down"), "status 503"),
        ((500, b'{"Error": "disk full", "Code": "Fault"}'), "^disk full$"),
    ],
)
async def test_any_other_answer_is_an_api_error(fake_node: FakeNode, answer, message):
    fake_node.raw_answer = answer
    async with Client(fake_node.url) as client:
        with pytest.raises(ApiError, match=message):
            await client.nodes()


async def test_token_goes_with_every_request(fake_node: FakeNode):
    async with Client(fake_node.url, token="secret") as client:
        await client.nodes()
    assert fake_node.authorizations == ["Bearer secret"]
