"""Which neighbours a node keeps, for how long, and how often each may be dialled."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bacalhau_p2p.model.base import PeerID
from bacalhau_p2p.node.neighbours import (
    FORGET_AFTER,
    MAX_ADDRESSES,
    MAX_NEIGHBOURS,
    MIN_WRITE_INTERVAL,
    WRITE_INTERVAL,
    Neighbours,
)

DAY = 24 * 3600.0


def peer(number: int) -> PeerID:
    return PeerID(f"peer-{number}")


def address(number: int) -> str:
    return f"/ip4/192.0.2.1/tcp/{number}/p2p/{peer(number)}"


@pytest.fixture
def known() -> Neighbours:
    return Neighbours()


def see(known: Neighbours, number: int, now: float, *, met: bool = False) -> None:
    known.record(peer(number), [address(number)], now, met=met)


def listed(known: Neighbours, now: float) -> set[PeerID]:
    return {neighbour.id for neighbour in known.to_dial(now)}


def restored(known: Neighbours, now: float) -> Neighbours:
    """The list of the next run, as written by this one and read `now`."""
    entries = known.entries_to_write(now, last=True)
    assert entries is not None
    after = Neighbours()
    after.restore(entries, now)
    return after


def test_a_restored_list_is_kept_for_a_week(known):
    see(known, 1, 100.0, met=True)
    see(known, 2, 200.0)
    after = restored(known, 300.0)
    assert after.to_dial(300.0) == known.to_dial(300.0)
    assert [neighbour.met for neighbour in after.to_dial(300.0)] == [True, False]
    assert listed(after, 150.0 + FORGET_AFTER) == {peer(2)}


def test_a_restored_list_counts_as_written(known):
    see(known, 1, 100.0)
    assert restored(known, 200.0).entries_to_write(200.0, last=True) is None


def test_a_clock_that_was_set_back_keeps_no_entry_longer(known):
    see(known, 1, 1000 * DAY)
    after = Neighbours()
    after.restore(known.entries_to_write(1000 * DAY, last=True), DAY)
    assert listed(after, DAY) == {peer(1)}
    assert listed(after, DAY + FORGET_AFTER + 1) == set()


def test_writes_are_at_least_an_interval_apart(known):
    assert known.entries_to_write(0.0, last=True) is None
    written = []
    for second in range(0, 7200, 5):
        if second < 3600:
            see(known, 1000 + second, float(second))  # always a new one
        for number in range(0, 100, 5):
            see(known, number, float(second))
        if known.entries_to_write(float(second)) is not None:
            written.append(second)
    early = [second for second in written if second < 320]
    assert early == [0, 60, 120, 180, 240, 300]
    assert min(b - a for a, b in pairwise(written)) >= MIN_WRITE_INTERVAL
    late = [second for second in written if second > 3700]  # only the times change
    assert min(b - a for a, b in pairwise(late)) >= WRITE_INTERVAL
    assert known.entries_to_write(7200.0, last=True) is not None
    assert known.entries_to_write(7200.0, last=True) is None


def test_a_flood_of_invented_nodes_does_not_displace_present_ones(known):
    honest = range(10)
    for number in honest:
        see(known, number, 0.0, met=number == 0)
    for number in range(1000, 9000):
        see(known, number, 30.0)
    assert len(listed(known, 30.0)) == MAX_NEIGHBOURS
    assert {peer(number) for number in honest} <= listed(known, 30.0)
    for number in range(10_000, 19_000):  # by now the honest ones are away
        see(known, number, 500.0)
    assert peer(0) in listed(known, 500.0)  # there was a connection to it
    assert len(listed(known, 500.0)) == MAX_NEIGHBOURS
    for number in range(100, 100 + MAX_NEIGHBOURS):
        see(known, number, 501.0, met=True)
    assert listed(known, 501.0) == {peer(number) for number in range(100, 100 + MAX_NEIGHBOURS)}


def test_only_some_addresses_of_the_node_itself_are_kept(known):
    known.record(
        peer(1), [address(2), "/ip4/192.0.2.1/tcp/1", f"/dns4/{'x' * 300}/p2p/{peer(1)}"], 0.0, met=True
    )
    assert listed(known, 0.0) == set()
    own = [f"/ip4/192.0.2.1/tcp/{port}/p2p/{peer(1)}" for port in range(100)]
    known.record(peer(1), [address(2), *own], 0.0, met=True)
    (neighbour,) = known.to_dial(0.0)
    assert neighbour.addresses == tuple(own[:MAX_ADDRESSES])
    known.record(peer(1), [], 5.0, met=False)
    assert known.to_dial(5.0) == [neighbour.model_copy(update={"seen": 5.0})]


def test_retry_intervals_double_up_to_an_hour_and_end_with_a_connection(known):
    see(known, 1, 0.0)
    now, pauses = 0.0, []
    for _ in range(9):
        known.record_failure(peer(1), now)
        pause = next(second for second in range(10_000) if known.to_dial(now + second))
        pauses.append(pause)
        now += pause
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    known.record_failure(peer(1), now)
    see(known, 1, now, met=True)
    assert listed(known, now) == {peer(1)}
