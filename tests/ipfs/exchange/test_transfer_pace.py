"""Transfers that stall or trickle are given up; fast ones may pause, and our own slowness does not count."""

from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.ipfs.exchange.faults import PeerFault
from bacalhau_p2p.ipfs.exchange.transfer_pace import LEAST_RATE, MOST_PATIENCE, TransferPace

IDLE = 15.0


async def transfer(size: int, every: float, pieces: int, pace: TransferPace | None = None) -> None:
    """Receive so many pieces of a transfer."""
    pace = pace or TransferPace(IDLE)

    async def receive() -> bytes:
        await trio.sleep(every)
        return bytes(size)

    for _ in range(pieces):
        await pace.receive(receive)


async def test_a_transfer_that_stalls_is_given_up(autojump_clock):
    began = trio.current_time()
    with pytest.raises(PeerFault, match="no data for 15 s"):
        await transfer(1, every=100, pieces=1)
    assert trio.current_time() - began == IDLE


@pytest.mark.parametrize("every", [0.1, 14.0])
async def test_a_transfer_that_trickles_is_given_up(autojump_clock, every):
    began = trio.current_time()
    with pytest.raises(PeerFault, match=f"sends less than {LEAST_RATE} bytes a second"):
        await transfer(1, every, pieces=1000)
    assert trio.current_time() - began < IDLE + 1


async def test_a_slow_transfer_may_take_as_long_as_it_needs(autojump_clock):
    await transfer(2 * LEAST_RATE, every=1, pieces=1000)


async def test_who_was_fast_may_not_trickle_for_ever(autojump_clock):
    pace = TransferPace(IDLE)
    await transfer(10_000 * LEAST_RATE, every=1, pieces=1, pace=pace)
    began = trio.current_time()
    with pytest.raises(PeerFault, match="sends less"):
        await transfer(1, every=1, pieces=1000, pace=pace)
    assert trio.current_time() - began <= MOST_PATIENCE + 1


async def test_the_time_in_which_nobody_waits_does_not_count(autojump_clock):
    pace = TransferPace(IDLE)
    for _ in range(10):
        await transfer(1, every=0, pieces=1, pace=pace)
        await trio.sleep(100)
