"""Requesters read what executions write: live, and after every end (`log_reader`)."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager

import pytest
import trio
import trio.testing

from bacalhau_p2p.errors import ExecutorError, LogsUnavailable
from bacalhau_p2p.model.base import ExecutionID, JobID, PeerID
from bacalhau_p2p.model.execution import Execution, Proposal, RunOutput
from bacalhau_p2p.model.history import HistoryPage
from bacalhau_p2p.model.logs import LogQuery, LogStream
from bacalhau_p2p.model.state import ExecutionState
from bacalhau_p2p.requester.log_reader import LogReader
from bacalhau_p2p.testing.network import open_network
from tests.support.programs.writing_executor import WritingExecutor

NOOP = {"Tasks": [{"Engine": {"Type": "noop"}}]}
OUT, ERR = LogStream.STDOUT, LogStream.STDERR


@asynccontextmanager
async def network(tmp_path, **settings):
    """A network with one compute node: it, and its executor."""
    executor = WritingExecutor()
    async with open_network(tmp_path, compute_nodes=1, executors={0: [executor]}, **settings) as net:
        with trio.fail_after(60):
            yield net, executor


async def read(job, **query):
    """Both streams as far as they are there."""
    found = {OUT: b"", ERR: b""}
    async for piece in job.logs(**query):
        assert piece.offset == len(found[piece.stream]) or query
        found[piece.stream] += piece.data
    return found[OUT], found[ERR]


async def test_output_is_read_as_it_is_written_and_until_the_job_has_ended(tmp_path):
    async with network(tmp_path) as (net, program):
        job = await net.requester.submit(NOOP)
        async with aclosing(job.logs(follow=True)) as pieces:
            for stream, data in ((OUT, b"one\n"), (ERR, b"two\n"), (OUT, b"three")):
                await program.write(**{stream.name.lower(): data})
                piece = await anext(pieces)
                assert (piece.stream, piece.data) == (stream, data)
            program.end()
            assert [piece async for piece in pieces] == []
        assert (await job.wait_result(30)).exit_code == 0
        assert await read(job) == (b"one\nthree", b"two\n")


async def test_a_run_that_exits_with_3_completes_and_its_output_is_that_of_its_result(tmp_path):
    async with network(tmp_path) as (net, program):
        job = await net.requester.submit(NOOP)
        await program.write(b"x" * 100_000, b"no such option\n")
        program.end(3)
        assert (await job.wait_result(30)).exit_code == 3
        assert await read(job, follow=True) == (b"x" * 100_000, b"no such option\n")
        assert await read(job, tail=1) == (b"x" * 100_000, b"no such option\n")


async def test_what_a_failed_run_wrote_is_kept_and_its_last_lines_are_told(tmp_path):
    async with network(tmp_path) as (net, program):
        job = await net.requester.submit(NOOP)
        await program.write(b"working\n", b"first\nlast words\n")
        program.end(failure=ExecutorError("the engine lost it", permanent=True))
        ended = await job.wait(30)
        assert ended.message == "the engine lost it"
        (execution,) = await job.executions()
        assert execution.message == "the engine lost it\nfirst\nlast words"
        assert await read(job) == (b"working\n", b"first\nlast words\n")
        assert await read(job, tail=1) == (b"working\n", b"last words\n")


async def test_what_a_run_wrote_before_its_timeout_is_kept(tmp_path):
    async with network(tmp_path) as (net, program):
        job = await net.requester.submit(
            {"Tasks": [{"Engine": {"Type": "noop"}, "Timeouts": {"ExecutionTimeout": 1}}]}
        )
        await program.write(b"still here\n")
        assert "execution timeout of 1 s" in (await job.wait(30)).message
        assert await read(job) == (b"still here\n", b"")


async def test_what_a_cancelled_run_wrote_is_kept(tmp_path):
    async with network(tmp_path) as (net, program):
        job = await net.requester.submit(NOOP)
        await program.write(b"half of it\n")
        async with aclosing(job.logs(follow=True)) as pieces:
            assert (await anext(pieces)).data == b"half of it\n"
            await job.cancel()
            assert [piece async for piece in pieces] == []
        logs = net.compute[0].settings.data_dir / "logs"
        while not list(logs.glob("*/*/stdout")):
            await trio.lowlevel.checkpoint()
        while await read(job) != (b"half of it\n", b""):
            await trio.lowlevel.checkpoint()


async def test_what_a_rejected_run_wrote_is_kept(tmp_path):
    programs = {number: WritingExecutor() for number in range(3)}
    async with open_network(
        tmp_path, compute_nodes=3, executors={n: [each] for n, each in programs.items()}
    ) as net:
        with trio.fail_after(60):
            job = await net.requester.submit({**NOOP, "Count": 3, "Verifier": {"Type": "deterministic"}})
            for number, each in programs.items():
                await each.write(b"wrong\n" if number == 1 else b"right\n")
                each.end()
            await job.wait_result(30)
            rejected = next(e for e in await job.executions() if e.node_id == net.compute[1].peer_id)
            while await read(job, execution=rejected.id) != (b"wrong\n", b""):
                await trio.lowlevel.checkpoint()


async def test_a_reader_that_leaves_disturbs_nothing(tmp_path):
    async with network(tmp_path) as (net, program):
        job = await net.requester.submit(NOOP)
        await program.write(b"x" * 1_000_000)
        for _ in range(3):
            async with aclosing(job.logs(follow=True)) as pieces:
                assert (await anext(pieces)).data
        program.end()
        assert (await job.wait_result(30)).exit_code == 0


async def test_only_the_requester_of_an_execution_may_read_it(tmp_path):
    async with network(tmp_path) as (net, program):
        job = await net.requester.submit(NOOP)
        await program.write(b"secret\n")
        (execution,) = await job.executions()
        source = net.compute[0]._compute.log_source
        assert source(net.requester.peer_id, execution.id) is not None
        assert source(net.compute[0].peer_id, execution.id) is None
        program.end()


async def test_a_job_without_an_execution_has_no_output(tmp_path):
    async with open_network(tmp_path, compute_nodes=0) as net:
        job = await net.requester.submit(NOOP)
        with pytest.raises(LogsUnavailable, match="has begun, so it has no output"):
            await read(job)


async def test_a_node_that_is_gone_is_named(tmp_path):
    async with network(tmp_path) as (net, program):
        job = await net.requester.submit(NOOP)
        await program.running.wait()
        net.memory_network.cut(net.requester.peer_id, net.compute[0].peer_id)
        net.memory_network.cut(net.compute[0].peer_id, net.requester.peer_id)
        with pytest.raises(LogsUnavailable, match="cannot be read from node"):
            await read(job)


async def test_empty_frames_are_no_answer():
    """A node could send millions of them, each of which would be told as if nothing had come for a while."""
    execution = Execution(
        id=ExecutionID("e"),
        job_id=JobID("j"),
        node_id=PeerID("n"),
        state=ExecutionState.BID_ACCEPTED,
        created=0.0,
        modified=0.0,
        slot=0,
    )
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(bytes(100))

    class Jobs:
        async def executions(self, job_id):
            return [execution]

        async def history(self, job_id, *, after=0, timeout=0.0):
            return HistoryPage([], ended=False)

    async def open_stream(peer, protocol):
        return ours

    reader = LogReader(Jobs(), open_stream, read_file=None)
    async with aclosing(reader.read(JobID("j"), LogQuery())) as pieces:
        with pytest.raises(LogsUnavailable):
            await anext(pieces)


async def test_of_nodes_that_run_the_same_one_is_followed_and_what_takes_its_place():
    """Bids come one after the other. What is not the first is no later attempt."""

    def completed(name, slot, created):
        output = RunOutput(stdout=name.encode())
        proposal = Proposal(job_id="j", execution_id=name, node_id="n", result_cid="bafkqaaa", output=output)
        return Execution(
            id=ExecutionID(name),
            job_id=JobID("j"),
            node_id=PeerID("n"),
            state=ExecutionState.COMPLETED,
            created=created,
            modified=created,
            slot=slot,
            proposal=proposal,
        )

    class Jobs:
        found = (completed("first", 0, 1.0), completed("other", 1, 1.01))

        async def executions(self, job_id):
            return self.found

        async def history(self, job_id, *, after=0, timeout=0.0):
            return HistoryPage([], ended=True)

    jobs = Jobs()
    async with aclosing(LogReader(jobs, None, None).read(JobID("j"), LogQuery(follow=True))) as pieces:
        assert (await anext(pieces)).data == b"first"
        jobs.found = (*jobs.found, completed("its place", 0, 9.0))
        assert [piece.data async for piece in pieces] == [b"its place"]
