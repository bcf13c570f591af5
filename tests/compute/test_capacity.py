"""Reservations under a limit."""

from __future__ import annotations

from random import Random

import pytest

from bacalhau_p2p.compute.capacity import LEAST_CHARGE, Capacity
from bacalhau_p2p.model.base import ExecutionID, PeerID
from bacalhau_p2p.model.resources import Resources

LIMIT = Resources(cpu=2, memory=1000, disk=1000)
ALICE, BOB = PeerID("alice"), PeerID("bob")
FIRST, SECOND = ExecutionID("e-1"), ExecutionID("e-2")


def test_no_more_is_reserved_than_the_limit():
    capacity = Capacity(LIMIT)
    assert capacity.reserve(FIRST, ALICE, Resources(cpu=1.5))
    assert not capacity.reserve(SECOND, ALICE, Resources(cpu=1))
    assert capacity.holders == {FIRST}
    assert capacity.available == Resources(cpu=0.5, memory=1000, disk=1000)


def test_an_execution_reserves_once():
    capacity = Capacity(LIMIT)
    assert capacity.reserve(FIRST, ALICE, Resources(cpu=1))
    assert capacity.reserve(FIRST, ALICE, Resources(cpu=1))
    assert capacity.reserved == Resources(cpu=1)


def test_each_requester_holds_the_sum_of_its_reservations():
    capacity = Capacity(LIMIT)
    for name, requester, cpu in (("e-1", ALICE, 0.5), ("e-2", BOB, 1), ("e-3", ALICE, 0.25)):
        capacity.reserve(ExecutionID(name), requester, Resources(cpu=cpu))
    assert capacity.held_by(ALICE) == (2, Resources(cpu=0.75))
    capacity.release(ExecutionID("e-1"))
    assert capacity.held_by(ALICE) == (1, Resources(cpu=0.25))
    assert capacity.held_by(PeerID("carol")) == (0, Resources())


def test_released_amounts_are_free_again_and_sums_return_to_zero():
    capacity = Capacity(LIMIT)
    for number in range(1000):
        capacity.reserve(ExecutionID(f"e-{number}"), ALICE, Resources(cpu=0.001))
    for number in range(1000):
        capacity.release(ExecutionID(f"e-{number}"))
    capacity.release(FIRST)
    assert capacity.reserved == Resources()


def test_the_load_is_that_of_the_most_reserved_resource():
    capacity = Capacity(LIMIT)
    assert capacity.load == 0
    capacity.reserve(FIRST, ALICE, Resources(cpu=1, memory=750))
    assert capacity.load == 0.75
    assert Capacity(Resources()).load == 0


def test_an_execution_that_asks_for_almost_nothing_is_charged_the_least_amount():
    capacity = Capacity(Resources(cpu=2, memory=200_000_000, disk=1000), least=LEAST_CHARGE)
    tiny = Resources(cpu=0.001, memory=1, disk=7)
    reserved = [capacity.reserve(ExecutionID(f"e-{number}"), ALICE, tiny) for number in range(60)]
    assert reserved.count(True) == 10
    assert not capacity.has_room(Resources())
    assert (capacity.reserved.memory, capacity.reserved.disk) == (200_000_000, 70)
    assert capacity.reserved.cpu == pytest.approx(10 * 0.01)
    capacity.release(ExecutionID("e-0"))
    assert capacity.reserve(ExecutionID("another"), ALICE, Resources(cpu=1, memory=20_000_000))
    assert capacity.available.cpu == pytest.approx(2 - 9 * 0.01 - 1)


def test_a_node_with_less_than_the_least_amount_runs_one_execution():
    capacity = Capacity(LIMIT, least=LEAST_CHARGE)
    assert capacity.reserve(FIRST, ALICE, Resources())
    assert not capacity.reserve(SECOND, ALICE, Resources())


def test_each_reservation_has_gpus_of_its_own():
    capacity = Capacity(Resources(cpu=9, gpu=3), gpus=("a", "b", "c", "beyond"))
    assert capacity.reserve(ExecutionID("e-1"), ALICE, Resources(gpu=2))
    assert capacity.reserve(ExecutionID("e-2"), ALICE, Resources(gpu=1))
    assert capacity.reserve(ExecutionID("e-3"), ALICE, Resources(cpu=1))
    assert not capacity.reserve(ExecutionID("e-4"), ALICE, Resources(gpu=1))
    assert [capacity.gpus_of(ExecutionID(f"e-{n}")) for n in (1, 2, 3, 4)] == [("a", "b"), ("c",), (), ()]
    capacity.release(ExecutionID("e-1"))
    assert capacity.reserve(ExecutionID("e-5"), ALICE, Resources(gpu=1), gpus=("b",))
    assert capacity.gpus_of(ExecutionID("e-5")) == ("b",)


def test_without_ids_gpus_are_only_counted():
    capacity = Capacity(Resources(gpu=2))
    assert capacity.reserve(ExecutionID("e-1"), ALICE, Resources(gpu=2))
    assert capacity.gpus_of(ExecutionID("e-1")) == ()
    assert not capacity.has_room(Resources(gpu=1))


def test_an_amount_delays_another_that_needs_what_it_takes():
    capacity = Capacity(Resources(cpu=4, memory=100, gpu=1))
    capacity.reserve(ExecutionID("e-1"), ALICE, Resources(cpu=1, gpu=1))
    waits = Resources(cpu=2, gpu=1)
    assert not capacity.delays(Resources(cpu=1, memory=100), waits)
    assert capacity.delays(Resources(cpu=1.5), waits)
    assert capacity.delays(Resources(gpu=1), waits)


def test_what_one_requester_holds_agrees_with_the_reservations_whatever_comes_and_goes():
    rng, capacity = Random(3), Capacity(Resources(cpu=40, memory=10**6))
    held: dict[ExecutionID, tuple[PeerID, Resources]] = {}
    amounts = [Resources(cpu=0.1, memory=7), Resources(cpu=0.7, memory=11)]
    for number in range(500):
        if held and rng.random() < 0.45:
            name = rng.choice(list(held))
            capacity.release(name)
            del held[name]
        else:
            name, requester, amount = (
                ExecutionID(f"e-{number}"),
                rng.choice([ALICE, BOB]),
                rng.choice(amounts),
            )
            if capacity.reserve(name, requester, amount):
                held[name] = requester, amount
        for requester in (ALICE, BOB):
            mine = [amount for holder, amount in held.values() if holder == requester]
            count, reserved = capacity.held_by(requester)
            assert (count, reserved.memory) == (len(mine), sum(amount.memory for amount in mine))
            assert reserved.cpu == pytest.approx(sum(amount.cpu for amount in mine))
        assert capacity.reserved.memory == sum(amount.memory for _, amount in held.values())
        assert all(capacity.holds(name) for name in held)
    for name in held:
        capacity.release(name)
    assert capacity.reserved == Resources()
