from __future__ import annotations

import math

import pytest
import trio

from bacalhau_p2p.ipfs.exchange.paced_sender import MAX_PIECE, MIN_PIECE, PacedSender


class RecordingStream(trio.abc.SendStream):
    """Accepts `rate` bytes a second, and records the size of each piece."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.pieces: list[int] = []

    async def send_all(self, data) -> None:
        self.pieces.append(len(data))
        await trio.sleep(len(data) / self.rate if self.rate else math.inf)

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        raise AssertionError


async def test_a_slow_peer_gets_small_pieces_and_is_waited_for(autojump_clock):
    stream = RecordingStream(rate=5_000)
    await PacedSender(stream, 15).send(bytes(1_000_000))
    assert set(stream.pieces[:-1]) == {MIN_PIECE}
    assert trio.current_time() == pytest.approx(200)


async def test_a_fast_peer_gets_large_pieces_until_it_becomes_slow(autojump_clock):
    stream = RecordingStream(rate=1e9)
    sender = PacedSender(stream, 15)
    await sender.send(bytes(3_000_000))
    assert sum(stream.pieces) == 3_000_000
    assert max(stream.pieces) == MAX_PIECE
    assert len(stream.pieces) < 3_000_000 / MAX_PIECE + 4
    stream.pieces.clear()
    stream.rate = 18_000
    await sender.send(bytes(1_000_000))
    assert set(stream.pieces[1:-1]) == {MIN_PIECE}


async def test_a_peer_that_accepts_nothing_is_given_up_after_the_idle_timeout(autojump_clock):
    with pytest.raises(trio.TooSlowError):
        await PacedSender(RecordingStream(rate=0), 15).send(bytes(10))
    assert trio.current_time() == 15
