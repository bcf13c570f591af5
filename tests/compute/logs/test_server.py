"""Who asks for the output of an execution gets it piece by piece, as fast as it reads (`logs.server`)."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress

import pytest
import trio

from bacalhau_p2p.bprotocol.log_streams import (
    MAX_ANSWER,
    FrameReader,
    LogEnd,
    LogRequest,
    decode_answer,
    encode_request,
)
from bacalhau_p2p.compute.logs import server as module
from bacalhau_p2p.compute.logs.server import LogServer, LogSource
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.logs import LogStream
from bacalhau_p2p.transports.memory.streams import WINDOW, memory_stream_pair

ALICE, RUN = PeerID("alice"), ExecutionID("e-1")
OUT = LogStream.STDOUT


class Bench:
    """One execution of ALICE, and whoever asks about it."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.live = True
        self.asked = 0
        self.server = LogServer(self._find)

    def _find(self, peer, execution_id):
        if (peer, execution_id) != (ALICE, RUN):
            return None
        return LogSource(self.folder, lambda: self.live)

    async def _serve(self, peer, stream):
        """As a transport does: it is no fault that a peer goes away."""
        with suppress(trio.BrokenResourceError):
            await self.server.serve(peer, stream)

    @asynccontextmanager
    async def ask(self, peer=ALICE, **request):
        """The frames of the answer."""
        ours, theirs = memory_stream_pair(lambda: 0.0, lambda: 0.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, peer, theirs)
            with trio.fail_after(30):
                await ours.send_all(encode_request(LogRequest(execution_id=RUN, **request)))
                yield Answer(ours)
            await ours.aclose()


class Answer:
    def __init__(self, stream) -> None:
        self.stream = stream
        self._frames = FrameReader(stream, MAX_ANSWER)

    async def next(self):
        return decode_answer(await self._frames.next(), RUN)

    async def rest(self):
        """The data of all pieces, and how the answer ends."""
        data = b""
        while not isinstance(piece := await self.next(), LogEnd):
            data += piece.data
        return data, piece.error


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


async def test_without_follow_the_answer_has_what_is_there(bench):
    (bench.folder / "stdout").write_bytes(b"x" * 100_000)
    async with bench.ask() as answer:
        assert await answer.rest() == (b"x" * 100_000, "")
    async with bench.ask(offsets=(99_990, 0)) as answer:
        assert await answer.rest() == (b"x" * 10, "")
    async with bench.ask(tail=0) as answer:
        assert await answer.rest() == (b"", "")


async def test_with_follow_it_goes_on_until_the_execution_has_ended(bench, autojump_clock):
    async with bench.ask(follow=True) as answer:
        (bench.folder / "stdout").write_bytes(b"one\n")
        assert (await answer.next())[1:] == (OUT, 0, b"one\n")
        with (bench.folder / "stdout").open("ab") as file:
            file.write(b"two\n")
        assert (await answer.next())[1:] == (OUT, 4, b"two\n")
        with (bench.folder / "stdout").open("ab") as file:
            file.write(b"end")
        bench.live = False
        assert await answer.rest() == (b"end", "")


async def test_nobody_else_gets_anything(bench):
    (bench.folder / "stdout").write_bytes(b"secret")
    async with bench.ask(peer=PeerID("mallory")) as answer:
        assert await answer.rest() == (b"", "its output is not on this node")


async def test_for_a_reader_that_does_not_read_no_more_waits_than_the_window(bench):
    size = 200 * 1024 * 1024
    with (bench.folder / "stdout").open("wb") as file:
        file.truncate(size)
    async with bench.ask(follow=True) as answer:
        await trio.testing.wait_all_tasks_blocked()
        sent = answer.stream._inbound._waiting_bytes
        assert sent == WINDOW
        assert (await answer.next()).offset == 0


async def test_a_reader_that_takes_nothing_for_long_is_left(bench, autojump_clock):
    with (bench.folder / "stdout").open("wb") as file:
        file.truncate(10 * WINDOW)
    with pytest.RaisesGroup(trio.TooSlowError):
        async with bench.ask() as answer:
            await trio.sleep(module.STALL_TIMEOUT + 1)
            del answer


async def test_a_reader_that_goes_away_is_noticed_while_nothing_is_written(bench):
    async with bench.ask(follow=True):
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert bench.server._readers.total() == 0


async def test_there_are_only_so_many_readers(bench, monkeypatch):
    monkeypatch.setattr(module, "MAX_READERS_OF_ONE", 1)
    async with bench.ask(follow=True):
        await trio.testing.wait_all_tasks_blocked(0.01)
        async with bench.ask(follow=True) as second:
            assert await second.rest() == (b"", "too many readers of logs")


async def test_a_question_that_makes_no_sense_is_a_fault_of_the_peer(bench):
    ours, theirs = memory_stream_pair(lambda: 0.0, lambda: 0.0)
    await ours.send_all(b"\x02\xff\xff")
    with pytest.raises(RemoteProtocolError):
        await bench.server.serve(ALICE, theirs)
