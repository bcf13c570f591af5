"""Frames to a peer: written at once or together, in order. Covers also `outbound_link`."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager, nullcontext

import pytest
import trio
import trio.testing

from bacalhau_p2p.encoding.framing import encode_frame
from bacalhau_p2p.errors import PeerUnreachable
from bacalhau_p2p.transports.libp2p.direct.links import DirectLinks


def framed(*payloads: bytes) -> bytes:
    return b"".join(encode_frame(payload) for payload in payloads)


class RecordingStream:
    """Records every write; it accepts none after `fill`."""

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


def direct_links(nursery, open_stream, counters: Counter[str] | None = None) -> DirectLinks:
    """Direct links on which nothing arrives."""
    return DirectLinks(
        nursery,
        open_stream=open_stream,
        deliver=None,
        reading=lambda peer: nullcontext(),
        offence=None,
        counters=Counter() if counters is None else counters,
    )


@asynccontextmanager
async def link(stream: RecordingStream, counters: Counter[str] | None = None):
    """Direct links with a stream to "peer", on which nothing was written yet."""

    async def open_stream(peer):
        return stream

    async with trio.open_nursery() as nursery:
        links = direct_links(nursery, open_stream, counters)
        with trio.fail_after(20):
            await links.send("peer", b"first")
            await links.flush()
            assert stream.writes == [framed(b"first")]
            stream.writes.clear()
            yield links
        nursery.cancel_scope.cancel()


async def test_a_frame_is_written_at_once(monkeypatch):
    monkeypatch.setattr("bacalhau_p2p.transports.libp2p.direct.outbound_link.BURST_INTERVAL", 0.0)
    stream = RecordingStream()
    async with link(stream) as links:
        assert links.send_now("peer", b"second", b"third")
        assert stream.writes == [framed(b"second", b"third")]


async def test_frames_of_a_burst_are_written_together(monkeypatch):
    monkeypatch.setattr("bacalhau_p2p.transports.libp2p.direct.outbound_link.BURST_INTERVAL", 60.0)
    stream = RecordingStream()
    frames = [b"%d" % number for number in range(50)]
    async with link(stream) as links:
        assert all(links.send_now("peer", frame) for frame in frames)
        await links.flush()
        assert stream.writes == [framed(frames[0]), framed(*frames[1:])]


async def test_frames_wait_in_order_while_the_stream_is_full(monkeypatch):
    monkeypatch.setattr("bacalhau_p2p.transports.libp2p.direct.outbound_link.BURST_INTERVAL", 0.0)
    stream = RecordingStream()
    async with link(stream) as links:
        stream.fill()
        assert links.send_now("peer", b"a")
        await trio.testing.wait_all_tasks_blocked()
        assert links.send_now("peer", b"b")
        await links.send("peer", b"c")
        assert stream.writes == []
        stream.room.set()
        assert links.send_now("peer", b"d")  # must not overtake the others
        await links.flush()
        assert b"".join(stream.writes) == framed(b"a", b"b", b"c", b"d")


async def test_frames_for_a_broken_stream_are_counted_as_lost(monkeypatch):
    monkeypatch.setattr("bacalhau_p2p.transports.libp2p.direct.outbound_link.BURST_INTERVAL", 0.0)
    stream, counters = RecordingStream(), Counter()
    async with link(stream, counters) as links:
        stream.broken = True
        assert links.send_now("peer", b"a", b"b")
        await links.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert stream.writes == []
        assert counters["frames_lost"] == 2
        assert not links.send_now("peer", b"c")


async def test_several_senders_wait_for_one_stream():
    opened, allow = [], trio.Event()

    async def open_stream(peer):
        opened.append(peer)
        await allow.wait()
        return RecordingStream()

    async with trio.open_nursery() as nursery:
        links = direct_links(nursery, open_stream)
        async with trio.open_nursery() as senders:
            for number in range(5):
                senders.start_soon(links.send, "peer", b"%d" % number)
            await trio.testing.wait_all_tasks_blocked()
            allow.set()
        assert opened == ["peer"]
        nursery.cancel_scope.cancel()


async def test_every_sender_learns_that_the_peer_is_unreachable():
    async def open_stream(peer):
        raise PeerUnreachable("no answer")

    async with trio.open_nursery() as nursery:
        links = direct_links(nursery, open_stream)
        for _ in range(2):
            with pytest.raises(PeerUnreachable, match="no answer"):
                await links.send("peer", b"frame")
