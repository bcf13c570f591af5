"""Reservations under a limit."""

from __future__ import annotations

from bacalhau_p2p.compute.capacity import Capacity
from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.model.resources import Resources

LIMIT = Resources(cpu=2, memory=1000, disk=1000)
FIRST, SECOND = ExecutionID("e-1"), ExecutionID("e-2")


def test_no_more_is_reserved_than_the_limit():
    capacity = Capacity(LIMIT)
    assert capacity.reserve(FIRST, Resources(cpu=1.5))
    assert not capacity.reserve(SECOND, Resources(cpu=1))
    assert capacity.holders == {FIRST}
    assert capacity.available == Resources(cpu=0.5, memory=1000, disk=1000)


def test_an_execution_reserves_once():
    capacity = Capacity(LIMIT)
    assert capacity.reserve(FIRST, Resources(cpu=1))
    assert capacity.reserve(FIRST, Resources(cpu=1))
    assert capacity.reserved == Resources(cpu=1)


def test_released_amounts_are_free_again_and_sums_return_to_zero():
    capacity = Capacity(LIMIT)
    for number in range(1000):
        capacity.reserve(ExecutionID(f"e-{number}"), Resources(cpu=0.001))
    for number in range(1000):
        capacity.release(ExecutionID(f"e-{number}"))
    capacity.release(FIRST)
    assert capacity.reserved == Resources()


def test_the_load_is_that_of_the_most_reserved_resource():
    capacity = Capacity(LIMIT)
    assert capacity.load == 0
    capacity.reserve(FIRST, Resources(cpu=1, memory=750))
    assert capacity.load == 0.75
    assert Capacity(Resources()).load == 0
