from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager, nullcontext

import pytest
import trio
import trio.testing

from bacalhau_p2p.encoding.framing import encode_frame
from bacalhau_p2p.encoding.varint import encode_varint
from bacalhau_p2p.errors import RemoteProtocolError
from bacalhau_p2p.transports.interface import MAX_FRAME
from bacalhau_p2p.transports.libp2p.direct.frames import FrameReader
from bacalhau_p2p.transports.libp2p.direct.links import DirectLinks


def framed(*payloads: bytes) -> bytes:
    return b"".join(encode_frame(payload) for payload in payloads)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 100, 100_000])
def test_frames_come_out_whole_whatever_the_pieces(piece):
    payloads = [b"", b"a", b"b" * 127, b"c" * 128, b"", b"d" * 20_000, b"e"]
    sent = framed(*payloads)
    reader = FrameReader()
    received = []
    for start in range(0, len(sent), piece):
        received += reader.feed(sent[start : start + piece])
    assert received == payloads


def test_a_half_frame_waits_for_its_other_half():
    reader = FrameReader()
    assert reader.feed(framed(b"first", b"second")[:-1]) == [b"first"]
    assert reader.feed(b"d") == [b"second"]


@pytest.mark.parametrize(
    "header", [encode_varint(MAX_FRAME + 1), b"\xff\xff\xff", b"\x80\x80\x80\x80\x01", encode_varint(2**40)]
)
def test_a_longer_frame_than_allowed_is_refused_before_it_comes(header):
    with pytest.raises(RemoteProtocolError, match="longer"):
        FrameReader().feed(header)


def test_the_longest_frame_is_taken():
    assert FrameReader().feed(framed(bytes(MAX_FRAME))) == [bytes(MAX_FRAME)]


# --- on the way out -------------------------------------------------------------------------------------


class Recorded:
    """A stream that keeps every write of its own; it takes none while it is `full`."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.room = trio.Event()
        self.room.set()
        self.broken = False

    def fill(self) -> None:
        self.room = trio.Event()

    def send_now(self, data: bytes) -> bool:
        if self.broken:
            raise trio.BrokenResourceError
        if self.room.is_set():
            self.writes.append(data)
        return self.room.is_set()

    async def send_all(self, data) -> None:
        await self.room.wait()
        if self.broken:
            raise trio.BrokenResourceError
        self.writes.append(data)

    async def receive_some(self, max_bytes=None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def wait_send_all_might_not_block(self) -> None:
        await self.room.wait()

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


@asynccontextmanager
async def link(stream: Recorded, counters: Counter[str] | None = None):
    """Direct links of which one, to "peer", stands; nothing was written yet."""

    async def open_stream(peer):
        return stream

    async with trio.open_nursery() as nursery:
        links = DirectLinks(
            nursery,
            open_stream=open_stream,
            deliver=None,
            reading=lambda peer: nullcontext(),
            offence=None,
            counters=Counter() if counters is None else counters,
        )
        with trio.fail_after(20):
            await links.send("peer", b"first")
            await links.flush()
            assert stream.writes == [framed(b"first")]
            stream.writes.clear()
            yield links
        nursery.cancel_scope.cancel()


async def test_a_frame_is_on_its_way_before_any_other_task_runs(monkeypatch):
    monkeypatch.setattr("bacalhau_p2p.transports.libp2p.direct.outbound_link.BURST_INTERVAL", 0.0)
    stream = Recorded()
    async with link(stream) as links:
        assert links.send_now("peer", b"second", b"third")
        assert stream.writes == [framed(b"second", b"third")]


async def test_frames_of_a_burst_are_written_together(monkeypatch):
    monkeypatch.setattr("bacalhau_p2p.transports.libp2p.direct.outbound_link.BURST_INTERVAL", 60.0)
    stream = Recorded()
    frames = [b"%d" % number for number in range(50)]
    async with link(stream) as links:
        assert all(links.send_now("peer", frame) for frame in frames)
        await links.flush()
        assert stream.writes == [framed(frames[0]), framed(*frames[1:])]


async def test_frames_wait_in_order_while_the_stream_takes_none(monkeypatch):
    monkeypatch.setattr("bacalhau_p2p.transports.libp2p.direct.outbound_link.BURST_INTERVAL", 0.0)
    stream = Recorded()
    async with link(stream) as links:
        stream.fill()
        assert links.send_now("peer", b"a")
        await trio.testing.wait_all_tasks_blocked()
        assert links.send_now("peer", b"b")
        await links.send("peer", b"c")
        assert stream.writes == []
        stream.room.set()
        assert links.send_now("peer", b"d")  # does not overtake the others, though there is room now
        await links.flush()
        assert b"".join(stream.writes) == framed(b"a", b"b", b"c", b"d")


async def test_frames_for_a_stream_that_broke_are_counted_as_lost(monkeypatch):
    monkeypatch.setattr("bacalhau_p2p.transports.libp2p.direct.outbound_link.BURST_INTERVAL", 0.0)
    stream, counters = Recorded(), Counter()
    async with link(stream, counters) as links:
        stream.broken = True
        assert links.send_now("peer", b"a", b"b")
        await links.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert stream.writes == []
        assert counters["frames_lost"] == 2
        assert not links.send_now("peer", b"c")
