"""How the parts of a DAG are distributed among providers. Everything here is pure: time is a number."""

from __future__ import annotations

import pytest

from bacalhau_p2p.ipfs.exchange.scheduler import (
    LEAST_PROGRESS,
    MAX_ASSIGNMENT_SIZE,
    MIN_ASSIGNMENT_SIZE,
    STALL_TIMEOUT,
    STEAL_DELAY,
    Assignment,
    Scheduler,
)
from bacalhau_p2p.ipfs.format.cid import CID, RAW
from bacalhau_p2p.model.base import PeerID

BOB, CAROL, DAVE = (PeerID(name) for name in ("bob", "carol", "dave"))
LEAVES = [CID.of(RAW, b"%d" % number) for number in range(100)]
LEAF_SIZE = 256 * 1024
"""What the scheduler assumes of a leaf before it has seen one."""


class Parts:
    """Work on these parts, of which a test takes some as arrived."""

    def __init__(self, parts: list[CID]) -> None:
        self.left = list(parts)

    def rest(self) -> list[CID]:
        return list(self.left)

    def split(self, keep: int) -> list[CID]:
        self.left, others = self.left[:keep], self.left[keep:]
        return others


@pytest.fixture
def scheduler() -> Scheduler[Parts]:
    return Scheduler(LEAVES)


def assign(scheduler: Scheduler[Parts], peer: PeerID, now: float, limit: int = 1000) -> Assignment[Parts]:
    wanted = scheduler.next_parts(peer, scheduler.unassigned, limit, alone=False)
    return scheduler.assign(peer, wanted, Parts(list(wanted)), now)


def test_a_single_provider_gets_everything_in_one_assignment(scheduler):
    assert scheduler.next_parts(BOB, LEAVES, 1000, alone=True) == tuple(LEAVES)
    assert scheduler.next_parts(BOB, LEAVES, 30, alone=True) == tuple(LEAVES[:30])


def test_an_assignment_has_as_many_parts_as_the_provider_sends_in_a_second():
    scheduler = Scheduler(CID.of(RAW, b"%d" % number) for number in range(1000))
    sizes = []
    for now, seconds in ((0, 0.1), (1, 0.001), (2, 4.0), (10, 1.0)):
        assignment = assign(scheduler, BOB, now)
        sizes.append(len(assignment.wanted) * LEAF_SIZE)
        assignment.add_bytes(sizes[-1], now + seconds)
        scheduler.completed(assignment, now + seconds)
    assert sizes == [
        MIN_ASSIGNMENT_SIZE,
        10 * MIN_ASSIGNMENT_SIZE,
        MAX_ASSIGNMENT_SIZE,
        MAX_ASSIGNMENT_SIZE // 4,
    ]


def test_the_scheduler_is_finished_when_every_part_has_arrived(scheduler):
    bob = scheduler.assign(BOB, tuple(LEAVES), Parts(LEAVES), now=0)
    assert scheduler.unassigned == []
    assert not scheduler.finished
    scheduler.completed(bob, now=1)
    assert scheduler.finished


def test_the_rest_of_a_failed_assignment_is_assigned_again(scheduler):
    bob = scheduler.assign(BOB, tuple(LEAVES), Parts(LEAVES), now=0)
    del bob.work.left[:97]
    scheduler.failed(bob)
    assert scheduler.unassigned == LEAVES[97:]


def test_a_part_is_added_only_once(scheduler):
    bob = scheduler.assign(BOB, tuple(LEAVES), Parts(LEAVES), now=0)
    more = CID.of(RAW, b"more")
    scheduler.add([LEAVES[0], more, more])
    assert scheduler.unassigned == [more]
    assert len(scheduler) == 101
    scheduler.completed(bob, now=1)
    scheduler.add([LEAVES[0]])
    assert scheduler.unassigned == [more]


def test_reserved_parts_belong_to_nobody_and_keep_the_scheduler_busy(scheduler):
    with scheduler.reserving(LEAVES):
        assert scheduler.unassigned == []
        assert scheduler.busy
    assert not scheduler.busy


def test_an_idle_provider_steals_the_parts_that_are_due_last(scheduler):
    bob = scheduler.assign(BOB, tuple(LEAVES), Parts(LEAVES), now=0)
    bob.add_bytes(2_000_000, now=1)
    del bob.work.left[:8]
    assert scheduler.steal(CAROL, now=1)
    stolen = scheduler.unassigned
    assert stolen == LEAVES[-len(stolen) :]
    assert bob.work.rest() == LEAVES[8 : -len(stolen)]
    assert 1 <= len(bob.work.rest()) <= 3  # what BOB sends in a quarter of a second


def test_nothing_is_stolen_that_will_arrive_soon_anyway(scheduler):
    bob = scheduler.assign(BOB, tuple(LEAVES), Parts(LEAVES), now=0)
    assert not scheduler.steal(BOB, now=1)
    assert not scheduler.steal(CAROL, now=STEAL_DELAY / 2)
    bob.add_bytes(90 * LEAF_SIZE, now=0.1)
    del bob.work.left[:90]
    assert not scheduler.steal(CAROL, now=0.1)
    assert scheduler.steal(CAROL, now=0.1 + STALL_TIMEOUT / 2)  # it has stopped sending


def test_a_stalled_assignment_is_duplicated_once_and_the_faster_provider_wins(scheduler):
    bob = scheduler.assign(BOB, tuple(LEAVES), Parts(LEAVES), now=0)
    cancelled = []
    bob.cancel = lambda: cancelled.append(BOB)
    assert scheduler.stalled(CAROL, now=STALL_TIMEOUT / 2) is None
    assert scheduler.stalled(BOB, now=STALL_TIMEOUT) is None
    assert scheduler.stalled(CAROL, now=STALL_TIMEOUT) is bob
    carol = scheduler.duplicate(CAROL, bob, tuple(LEAVES), Parts(LEAVES), now=STALL_TIMEOUT)
    assert scheduler.stalled(DAVE, now=STALL_TIMEOUT * 1.5) is None
    assert not scheduler.steal(DAVE, now=10)
    scheduler.completed(carol, now=2)
    assert cancelled == [BOB]
    assert scheduler.finished
    scheduler.failed(bob)  # its cancelled transfer ends afterwards
    assert scheduler.unassigned == []
    assert not scheduler.needs_rescan


def test_the_number_of_duplicates_doubles_while_none_makes_progress(scheduler):
    bob = scheduler.assign(BOB, tuple(LEAVES), Parts(LEAVES), now=0)
    twins, asked = [bob], []
    for second in range(1, 5):
        while (stalled := scheduler.stalled(PeerID(f"peer {len(twins)}"), now=second)) is not None:
            peer = PeerID(f"peer {len(twins)}")
            twins.append(scheduler.duplicate(peer, stalled, tuple(LEAVES), Parts(LEAVES), now=second))
        asked.append(len(twins))
    assert asked == [2, 4, 8, 16]
    twins[9].add_bytes(LEAST_PROGRESS, now=5)
    scheduler.completed(twins[9], now=5)
    assert scheduler.finished


def test_a_byte_now_and_then_is_no_progress(scheduler):
    bob = scheduler.assign(BOB, tuple(LEAVES), Parts(LEAVES), now=0)
    for now in range(10):
        bob.add_bytes(1, now)
    assert scheduler.stalled(CAROL, now=10) is bob
    assert scheduler.stalled_peers(now=10) == {BOB}
    bob.add_bytes(LEAST_PROGRESS, now=10)
    assert scheduler.stalled(CAROL, now=10.5) is None


def test_when_both_duplicates_fail_the_store_has_to_be_searched_again(scheduler):
    bob = scheduler.assign(BOB, tuple(LEAVES), Parts(LEAVES), now=0)
    carol = scheduler.duplicate(CAROL, bob, tuple(LEAVES), Parts(LEAVES), now=1)
    scheduler.failed(bob)
    assert not scheduler.needs_rescan
    scheduler.failed(carol)
    assert scheduler.needs_rescan
    assert scheduler.unassigned == []
