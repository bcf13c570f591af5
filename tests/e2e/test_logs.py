"""What programs write, read by their requester while they run and after every end: WebAssembly and Docker."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import trio

from bacalhau_p2p.model.history import EventKind
from bacalhau_p2p.model.logs import LogStream
from bacalhau_p2p.testing.network import open_network
from tests.support.programs.talking_modules import talker

OUT, ERR = LogStream.STDOUT, LogStream.STDERR


@asynccontextmanager
async def network(tmp_path):
    async with open_network(tmp_path, compute_nodes=1, engines=("wasm",)) as net:
        with trio.fail_after(120):
            yield net.requester


async def read(job):
    found = {OUT: b"", ERR: b""}
    async for piece in job.logs():
        found[piece.stream] += piece.data
    return found[OUT].decode().splitlines(), found[ERR].decode().splitlines()


async def test_lines_come_while_the_program_runs_and_stay_when_it_exits_with_3(tmp_path):
    async with network(tmp_path) as node:
        job = await node.submit(talker(lines=3, pause=0.5))
        followed = {OUT: b"", ERR: b""}
        async with aclosing(job.logs(follow=True)) as pieces:
            first = await anext(pieces)
            assert (first.stream, first.data.count(b"\n")) == (OUT, 1)
            assert not (await job.status()).state.terminal
            followed[OUT] += first.data
            async for piece in pieces:
                followed[piece.stream] += piece.data
        assert (await job.wait_result(60)).exit_code == 3
        lines, errors = await read(job)
        assert (len(lines), len(errors)) == (3, 1)
        assert followed[OUT].decode().splitlines() == lines
        assert followed[ERR].decode().splitlines() == errors


async def test_what_a_program_wrote_before_its_timeout_is_there_and_its_end_is_told(tmp_path):
    async with network(tmp_path) as node:
        job = await node.submit(talker(lines=1000, pause=0.1, ExecutionTimeout=2))
        ended = await job.wait(60)
        assert ended.message.startswith("the job exceeded its execution timeout of 2 s")
        lines, _ = await read(job)
        assert lines
        (execution,) = await job.executions()
        assert execution.message.splitlines()[1:] == lines[-10:]
        kinds = [event.kind async for event in job.events()]
        assert kinds[-2:] == [EventKind.FAILED, EventKind.ENDED]


async def test_a_follower_sees_the_end_of_a_job_that_is_cancelled(tmp_path):
    async with network(tmp_path) as node:
        job = await node.submit(talker(lines=1000, pause=0.05))
        async with aclosing(job.logs(follow=True)) as pieces:
            assert (await anext(pieces)).stream is OUT
            await job.cancel()
            async for piece in pieces:
                assert piece.stream is OUT
        assert (await job.status()).state == "Stopped"


# --- Docker -----------------------------------------------------------------------------------


def shell(script: str, **timeouts: float) -> dict[str, Any]:
    params = {"Image": "busybox:latest", "Entrypoint": ["sh", "-c"], "Parameters": [script]}
    return {"Tasks": [{"Engine": {"Type": "docker", "Params": params}, "Timeouts": timeouts}]}


@pytest.fixture
async def docker_node(docker_client, tmp_path):
    """The requester of a network whose compute node has an engine."""
    async with open_network(tmp_path, compute_nodes=1, engines=("docker",)) as net:
        yield net.requester


async def test_lines_of_a_container_come_while_it_runs_and_stay_when_it_exits_with_3(docker_node):
    with trio.fail_after(120):
        job = await docker_node.submit(shell("echo one; sleep 1; echo two; echo oh >&2; exit 3"))
        async with aclosing(job.logs(follow=True)) as pieces:
            first = await anext(pieces)
            assert first[1:] == (OUT, 0, b"one\n")
            assert not (await job.status()).state.terminal
            rest = [(piece.stream, piece.data) async for piece in pieces]
        assert sorted(rest) == [(OUT, b"two\n"), (ERR, b"oh\n")]
        assert (await job.wait_result(60)).exit_code == 3
        assert await read(job) == (["one", "two"], ["oh"])


async def test_what_a_container_wrote_before_its_timeout_is_there(docker_node):
    with trio.fail_after(120):
        job = await docker_node.submit(shell("echo working; echo stuck >&2; sleep 100", ExecutionTimeout=2))
        assert (await job.wait(60)).message.startswith("the job exceeded its execution timeout of 2 s")
        assert await read(job) == (["working"], ["stuck"])


async def test_what_a_cancelled_container_wrote_is_there(docker_node):
    with trio.fail_after(120):
        job = await docker_node.submit(shell("echo working; sleep 100"))
        async with aclosing(job.logs(follow=True)) as pieces:
            assert (await anext(pieces)).data == b"working\n"
            await job.cancel()
            assert [piece async for piece in pieces] == []
