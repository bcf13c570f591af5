"""A flood waits in its own lane: what others send comes in turn, by what it costs to handle."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
import trio.testing

from bacalhau_p2p.transports.arrivals import (
    LANE_LENGTH,
    LONGEST_RUN,
    MAX_LANES,
    MAX_WAITING_BYTES,
    Arrivals,
    FairQueue,
)
from bacalhau_p2p.transports.budgets import (
    STRANGER_PROCESSOR_BURST,
    STRANGER_PROCESSOR_SHARE,
    Budgets,
    Source,
)
from bacalhau_p2p.transports.interface import (
    Broadcast,
    DirectFrame,
    PeerConnected,
    PeerDisconnected,
    Unfinished,
)

ALICE, BOB, MALLORY = Source("alice"), Source("bob"), Source("mallory")


class Clock:
    now = 0.0


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def budgets(clock):
    return Budgets(lambda: clock.now, is_connected=lambda peer: True, cut_off=lambda peer, seconds: None)


@pytest.fixture
def queue(budgets):
    return FairQueue(budgets)


def served(queue, clock, seconds, cost=0.001) -> Counter:
    """Who was served how often in so many seconds, each message costing `cost`."""
    count = Counter()
    until = clock.now + seconds
    while clock.now < until and (taken := queue.take()) is not None:
        count[taken[0].peer] += 1
        price = cost if isinstance(cost, float) else cost[taken[0].peer]
        clock.now += price
        queue.charge(price)
    return count


def fill(queue, source, count=1000) -> None:
    for number in range(count):
        queue.put(source, number, 1)


def test_what_one_peer_sends_comes_in_order(queue):
    fill(queue, ALICE, 5)
    assert [queue.take()[1] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert queue.take() is None


def test_a_message_waits_for_one_message_of_a_flood_not_for_all(queue):
    fill(queue, MALLORY)
    queue.take()
    queue.charge(0.001)
    queue.put(ALICE, "honest", 1)
    assert "honest" in [queue.take()[1] for _ in range(2)]


def test_lanes_take_turns_by_cost_and_not_by_number(queue, clock, budgets):
    for source in (ALICE, MALLORY):
        fill(queue, source)
    count = served(queue, clock, 0.4, cost={"alice": 0.001, "mallory": 0.01})
    assert count["alice"] == pytest.approx(200, abs=15)
    assert count["mallory"] == pytest.approx(20, abs=2)


def test_any_number_of_strangers_leave_half_of_the_time_to_peers_that_have_answered(queue, clock, budgets):
    budgets.answered("alice")
    fill(queue, ALICE)
    for number in range(100):
        fill(queue, Source(f"invented-{number}"), 10)
    assert served(queue, clock, 0.5)["alice"] == pytest.approx(250, abs=5)


def test_who_is_alone_takes_all_of_the_time(queue, clock):
    fill(queue, MALLORY)
    assert served(queue, clock, 0.4)["mallory"] == pytest.approx(400, abs=2)


def test_who_was_idle_does_not_make_up_for_it(queue, clock, budgets):
    budgets.answered("alice")
    fill(queue, MALLORY)
    served(queue, clock, 0.4)
    for source in (ALICE, BOB):
        fill(queue, source)
    count = served(queue, clock, 0.2)
    assert count["alice"] == pytest.approx(100, abs=5)
    assert count["bob"] == pytest.approx(50, abs=5)
    assert count["mallory"] == pytest.approx(50, abs=5)


def test_who_took_its_processor_time_rests_until_it_has_some_again(queue, clock, budgets):
    fill(queue, MALLORY)
    queue.take()
    queue.charge(STRANGER_PROCESSOR_BURST + 0.2)
    assert queue.take() is None
    assert queue.rests_for() == pytest.approx(0.2 / STRANGER_PROCESSOR_SHARE)
    queue.put(ALICE, "honest", 1)
    assert queue.take() == (ALICE, "honest")
    clock.now += queue.rests_for()
    assert queue.take() == (MALLORY, 1)


def test_the_rest_of_a_message_comes_before_the_next_one_but_after_others(queue):
    fill(queue, MALLORY, 3)
    queue.put(ALICE, "honest", 1)
    assert queue.take() == (MALLORY, 0)
    queue.charge(0.001)
    queue.put_back("rest")
    assert [queue.take()[1] for _ in range(4)] == ["honest", "rest", 1, 2]
    assert len(queue) == 0


def test_a_lane_is_bounded_in_number_and_bytes_and_all_lanes_together(queue):
    while queue.has_room(MALLORY, 100):
        queue.put(MALLORY, "x", 100)
    assert len(queue) == LANE_LENGTH
    held = 0
    for number in range(1_000):
        source = Source(f"invented-{number}")
        queue.put(source, "first", 1)
        while queue.has_room(source, 100_000):
            queue.put(source, "x", 100_000)
            held += 100_000
    assert MAX_WAITING_BYTES / 2 < held <= MAX_WAITING_BYTES
    assert queue.has_room(ALICE, 1_000_000)  # one message of anybody


def test_a_peer_that_becomes_known_is_served_at_once(queue, clock, budgets):
    fill(queue, ALICE)
    served(queue, clock, 0.3)
    budgets.answered("alice")
    budgets.answered("bob")
    fill(queue, BOB)
    served(queue, clock, 0.1)
    fill(queue, BOB)
    assert served(queue, clock, 0.2)["alice"] > 50


def test_lanes_of_peers_that_left_do_not_pile_up(queue):
    for number in range(3 * MAX_LANES):
        queue.put(Source(f"peer-{number}"), "x", 1)
        queue.take()
        queue.charge(0.001)
    assert len(queue._lanes) <= MAX_LANES + 1


# --- as a channel -------------------------------------------------------------------------------


async def test_who_sends_frames_waits_for_room_in_its_own_lane_only(budgets):
    arrivals = Arrivals(budgets, lane_length=1)
    await arrivals.put(DirectFrame("mallory", b"1"))
    assert not arrivals.put_now(DirectFrame("mallory", b"2"))
    assert arrivals.put_now(DirectFrame("alice", b"3"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(arrivals.put, DirectFrame("mallory", b"2"))
        await trio.testing.wait_all_tasks_blocked()
        payloads = [(await arrivals.receive()).payload for _ in range(3)]
    assert sorted(payloads) == [b"1", b"2", b"3"]


async def test_news_of_a_peer_and_its_frames_stay_in_order(budgets):
    arrivals = Arrivals(budgets)
    sent = [PeerConnected("alice"), DirectFrame("alice", b"1"), PeerDisconnected("alice")]
    for item in sent:
        await arrivals.put(item)
    assert [await arrivals.receive() for _ in sent] == sent


async def test_a_reader_waits_until_a_lane_has_rested(budgets, clock, autojump_clock):
    budgets._clock = trio.current_time
    arrivals = Arrivals(budgets)
    for payload in (b"1", b"2"):
        await arrivals.put(Broadcast("mallory", "t", payload))
    await arrivals.receive()
    arrivals.charge(STRANGER_PROCESSOR_BURST + 0.2)
    began = trio.current_time()
    assert (await arrivals.receive()).payload == b"2"
    assert trio.current_time() - began == pytest.approx(0.2 / STRANGER_PROCESSOR_SHARE)


async def test_what_was_put_back_comes_again(budgets):
    arrivals = Arrivals(budgets)
    await arrivals.put(DirectFrame("alice", b"1"))
    await arrivals.receive()
    rest = Unfinished(iter(()))
    arrivals.put_back(rest)
    assert await arrivals.receive() is rest


async def test_a_closed_one_gives_what_it_has_and_then_ends(budgets):
    arrivals = Arrivals(budgets)
    await arrivals.put(DirectFrame("alice", b"1"))
    arrivals.close()
    assert [item.payload async for item in arrivals] == [b"1"]
    with pytest.raises(trio.EndOfChannel):
        arrivals.receive_nowait()


# --- peers that are cut off ---------------------------------------------------------------------


def test_what_waits_of_a_peer_that_is_cut_off_is_dropped(queue):
    fill(queue, MALLORY, 5)
    queue.put(MALLORY, PeerDisconnected("mallory"), 0)
    fill(queue, ALICE, 2)
    queue.discard(MALLORY)
    assert len(queue) == 3
    assert Counter(queue.take()[0].peer for _ in range(3)) == {"alice": 2, "mallory": 1}
    assert queue.take() is None
    queue.put(MALLORY, "later", 1)
    assert queue.take() == (MALLORY, "later")


def test_a_lane_from_which_everything_was_dropped_is_skipped(queue, clock):
    fill(queue, MALLORY, 5)
    queue.take()
    queue.charge(STRANGER_PROCESSOR_BURST + 0.2)
    assert queue.take() is None  # it rests
    queue.discard(MALLORY)
    clock.now += 60
    assert queue.take() is None
    queue.put(MALLORY, "later", 1)
    assert queue.take() == (MALLORY, "later")


def test_the_rest_of_a_broadcast_of_a_peer_that_was_cut_off_meanwhile_is_dropped(queue, budgets):
    fill(queue, MALLORY, 1)
    queue.take()
    budgets.cut_off("mallory", "a test")
    queue.put_back("rest")
    assert queue.take() is None


async def test_arrivals_drop_what_a_peer_and_its_strangers_sent_when_it_is_cut_off(budgets):
    arrivals = Arrivals(budgets)
    for author in ("mallory", "alice"):
        await arrivals.put(Broadcast(author, "topic", b"x"))
    async with trio.open_nursery() as nursery:
        for _ in range(2):  # the second waits for room
            nursery.start_soon(arrivals.put, DirectFrame("mallory", bytes(MAX_WAITING_BYTES)))
        await trio.testing.wait_all_tasks_blocked()
        budgets.cut_off("mallory", "a test")
    assert len(arrivals) == 1
    assert (await arrivals.receive()).author == "alice"


@pytest.mark.parametrize(("cost", "steps"), [(LONGEST_RUN / 10, 1), (LONGEST_RUN * 2, 9)])
async def test_a_reader_gives_way_to_other_tasks_by_what_messages_cost(budgets, cost, steps):
    arrivals, passes = Arrivals(budgets), 0

    async def count_passes():
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    for number in range(10):
        assert arrivals.put_now(DirectFrame("alice", bytes([number])))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_passes)
        for _ in range(10):
            await arrivals.receive()
            arrivals.charge(cost)
        nursery.cancel_scope.cancel()
    assert steps - 3 <= passes <= steps + 1  # tasks that are ready run in any order
