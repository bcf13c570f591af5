"""What waits for a job over HTTP survives broken connections and restarts of the node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from bacalhau_p2p.client.client import Client
from bacalhau_p2p.errors import ApiError, NodeUnavailable
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.logs import LogPiece, LogStream
from bacalhau_p2p.model.state import JobState
from tests.support.servers.fake_node import FakeNode

Run = Callable[[Callable[[], Awaitable[Any]]], Any]
NOOP = {"Tasks": [{"Engine": {"Type": "noop"}}]}


def with_a_history(node: FakeNode, events: int) -> str:
    job = node.add_job("some-job")
    for _ in range(events - 1):
        node.tell(job.id, EventKind.WAITING, "")
    node.tell(job.id, EventKind.ENDED, "")
    node.set_state(job.id, JobState.COMPLETED)
    return job.id


def test_a_stream_of_events_that_breaks_goes_on_after_the_last_event(run: Run, fake_node: FakeNode):
    job_id = with_a_history(fake_node, 6)
    fake_node.break_streams_after = [2, 5]

    async def main() -> None:
        async with Client(fake_node.url) as client:
            job = await client.job(job_id)
            assert [event.number async for event in job.events()] == [1, 2, 3, 4, 5, 6]

    run(main)
    assert fake_node.last_event_ids == [0, 2, 5]


def test_text_of_strangers_does_not_break_a_stream(run: Run, fake_node: FakeNode):
    """Characters at which Python ends lines, which JSON may contain as they are."""
    odd = "a\u2028b\u2029c\x85d"
    job = fake_node.add_job("some-job")
    fake_node.tell(job.id, EventKind.WAITING, odd)
    fake_node.tell(job.id, EventKind.ENDED, "")
    fake_node.set_state(job.id, JobState.COMPLETED)
    fake_node.logs[job.id] = [LogPiece(ExecutionID("e-1"), LogStream.STDOUT, 0, odd.encode())]

    async def main() -> None:
        async with Client(fake_node.url) as client:
            handle = await client.job(job.id)
            assert [event.message async for event in handle.events()] == [odd, ""]
            assert [piece.data async for piece in handle.logs()] == [odd.encode()]

    run(main)


def test_events_after_the_last_one_are_none(run: Run, fake_node: FakeNode):
    job_id = with_a_history(fake_node, 2)

    async def main() -> None:
        async with Client(fake_node.url) as client:
            assert [event async for event in (await client.job(job_id)).events(after=2)] == []

    run(main)


def test_a_wait_survives_a_restart_of_the_node(run: Run, tmp_path: Path):
    (tmp_path / "results").mkdir()
    with FakeNode() as first:
        port = first.port

        async def main() -> None:
            async with Client(f"http://127.0.0.1:{port}") as client, anyio.create_task_group() as group:
                job = await client.submit(NOOP)
                group.start_soon(restart, job.id)
                assert (await job.wait_result()).exit_code == 0

        async def restart(job_id: str) -> None:
            await anyio.to_thread.run_sync(first.wait_until, lambda: first.waiting == 1)
            await anyio.to_thread.run_sync(first.crash)
            second.add_job(job_id)
            second.complete(job_id, tmp_path / "results")
            second.start()

        with FakeNode(port=port, started=False) as second:
            run(main)
    assert [path for _, path in second.requests if "wait=" in path] != []


def test_a_wait_gives_up_when_the_node_stays_away(run: Run):
    with FakeNode() as node:

        async def main() -> None:
            async with Client(node.url, reconnect=0.05) as client:
                job = await client.submit(NOOP)
                node.crash()
                with pytest.raises(NodeUnavailable, match=r"^no node listens at http://127.0.0.1:\d+: start"):
                    await job.wait()
                with pytest.raises(NodeUnavailable):
                    await anext(aiter(job.events()))

        run(main)


def test_followed_logs_that_break_go_on_where_they_were(run: Run, fake_node: FakeNode):
    job = fake_node.add_job("some-job")
    execution = ExecutionID("e-1")
    fake_node.logs[job.id] = [
        LogPiece(execution, LogStream.STDOUT, 0, b"one "),
        LogPiece(execution, LogStream.STDERR, 0, b"error"),
        LogPiece(execution, LogStream.STDOUT, 4, b"two "),
        LogPiece(execution, LogStream.STDOUT, 8, b"three"),
    ]
    fake_node.cut_logs_after = [3]

    async def main() -> None:
        written = {LogStream.STDOUT: b"", LogStream.STDERR: b""}
        async with Client(fake_node.url) as client:
            async for piece in (await client.job(job.id)).logs(follow=True):
                written[piece.stream] += piece.data
        assert written == {LogStream.STDOUT: b"one two three", LogStream.STDERR: b"error"}

    run(main)
    assert len([path for _, path in fake_node.requests if "/logs" in path]) == 2


def test_a_file_of_a_result_is_streamed(run: Run, fake_node: FakeNode, tmp_path: Path):
    folder = tmp_path / "results"
    (folder / "outputs").mkdir(parents=True)
    data = bytes(range(250)) * 20_000
    (folder / "outputs" / "data").write_bytes(data)
    fake_node.on_submit = lambda job: fake_node.complete(job.id, folder)

    async def main() -> None:
        async with Client(fake_node.url) as client:
            result = await (await client.submit(NOOP)).wait_result()
            async with result.open("outputs/data") as file:
                pieces = [piece async for piece in file]
            assert len(pieces) > 1
            assert b"".join(pieces) == data == await result.read("outputs/data")

    run(main)


def test_streams_that_take_all_connections_are_an_error_that_says_so(
    run: Run, fake_node: FakeNode, monkeypatch
):
    monkeypatch.setattr("bacalhau_p2p.client.async_connection.MAX_CONNECTIONS", 2)
    monkeypatch.setattr("bacalhau_p2p.client.async_connection.CONNECTION_TIMEOUT", 0.05)

    async def main() -> None:
        async with Client(fake_node.url) as client:
            job = await client.submit(NOOP)
            fake_node.tell(job.id, EventKind.SUBMITTED, "")
            streams = [job.events(), job.events()]
            for stream in streams:
                await anext(stream)
            with pytest.raises(ApiError, match=r"^all 2 connections of this client are in use: close some"):
                await job.status()
            for stream in streams:
                await stream.aclose()
            assert (await job.status()).id == job.id

    run(main)


def test_more_waits_than_connections_take_turns(run: Run, fake_node: FakeNode, tmp_path: Path, monkeypatch):
    (tmp_path / "results").mkdir()
    monkeypatch.setattr("bacalhau_p2p.client.http_backend.MAX_LONG_POLLS", 2)
    monkeypatch.setattr("bacalhau_p2p.client.http_backend.SHORT_POLL", 0.01)

    async def main() -> None:
        async with Client(fake_node.url) as client, anyio.create_task_group() as group:
            jobs = [await client.submit(NOOP) for _ in range(5)]
            for job in jobs:
                group.start_soon(job.wait)
            await anyio.to_thread.run_sync(fake_node.wait_until, lambda: fake_node.waited > 10)
            for job in jobs:
                fake_node.complete(job.id, tmp_path / "results")

    run(main)
