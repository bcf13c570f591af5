"""A node reads what its own executions write, which no stream to another peer could bring (`log_access`)."""

from __future__ import annotations

from contextlib import aclosing

import trio

from bacalhau_p2p.identity.identity import Identity
from bacalhau_p2p.node import open_node
from bacalhau_p2p.settings import Settings
from bacalhau_p2p.transports.memory.network import MemoryNetwork
from tests.support.programs.writing_executor import WritingExecutor

NOOP = {"Tasks": [{"Engine": {"Type": "noop"}}]}


async def test_a_node_reads_what_its_own_executions_write(tmp_path):
    program, identity = WritingExecutor(), Identity.generate()
    async with (
        MemoryNetwork().open(identity) as transport,
        open_node(
            Settings(data_dir=tmp_path, engines=("noop",)),
            executors=[program],
            transport=transport,
            identity=identity,
        ) as node,
    ):
        with trio.fail_after(60):
            job = await node.submit(NOOP)
            async with aclosing(job.logs(follow=True)) as pieces:
                await program.write(b"one\n" + b"x" * 100_000)
                assert (await anext(pieces)).data.startswith(b"one\n")
                program.end()
                assert sum([len(piece.data) async for piece in pieces]) > 80_000
            await job.wait_result(30)
            assert b"".join([piece.data async for piece in job.logs(tail=1)]) == b"x" * 100_000
            assert [piece async for piece in job.logs(tail=0)] == []
