"""Who is behind dials in vain, and how many are granted: `dial_budget`. `libp2p/test_dialer` dials."""

from __future__ import annotations

import pytest

from bacalhau_p2p.transports import dial_budget
from bacalhau_p2p.transports.budgets import Budgets
from bacalhau_p2p.transports.dial_budget import (
    VAIN_DIAL_BURST,
    VAIN_DIALS_PER_SECOND,
    DialBudget,
    dialling_for,
)
from bacalhau_p2p.transports.offences import Offences

HUB, GHOST, ALICE = "hub", "ghost", "alice"


class Bench:
    def __init__(self) -> None:
        self.now = 1000.0
        self.offences = Offences()
        self.budget = DialBudget(lambda: self.now, self.offences)


@pytest.fixture
def bench():
    return Bench()


def test_the_neighbour_that_brought_a_stranger_pays_until_that_is_met(bench):
    assert bench.budget.payer(GHOST) is None
    bench.budget.brought(GHOST, HUB)
    assert bench.budget.payer(GHOST) == HUB
    bench.budget.met(GHOST)
    assert bench.budget.payer(GHOST) is None


def test_the_requester_of_a_job_pays_for_what_is_dialled_for_it(bench):
    bench.budget.brought(GHOST, HUB)
    with dialling_for(ALICE):
        assert bench.budget.payer("anybody") == bench.budget.payer(GHOST) == ALICE
    assert bench.budget.payer("anybody") is None


def test_a_budget_comes_back(bench):
    for _ in range(VAIN_DIAL_BURST):
        assert bench.budget.admits(HUB)
        bench.budget.failed(HUB)
    assert bench.offences.worst() == {}
    bench.budget.failed(HUB)
    assert not bench.budget.admits(HUB)
    assert bench.budget.admits(ALICE)
    assert bench.offences.worst() == {HUB: {"vain_dials": 1}}
    bench.now += 1 / VAIN_DIALS_PER_SECOND
    assert bench.budget.admits(HUB)


def test_what_is_remembered_is_bounded(bench, monkeypatch):
    monkeypatch.setattr(dial_budget, "MAX_BROUGHT", 2)
    monkeypatch.setattr(dial_budget, "MAX_PAYERS", 2)
    for number in range(5):
        bench.budget.brought(f"ghost-{number}", HUB)
        bench.budget.failed(f"hub-{number}")
    assert [bench.budget.payer(f"ghost-{number}") for number in range(5)] == [None, None, None, HUB, HUB]
    assert len(bench.budget._buckets) == 2


def test_strangers_of_a_neighbour_are_noted_until_they_answer():
    budgets = Budgets(lambda: 0.0, is_connected=lambda peer: False, cut_off=lambda peer, seconds: None)
    budgets.takes_broadcast(GHOST, HUB, b"\x80")
    budgets.takes_broadcast(ALICE, ALICE, b"\x80")
    assert (budgets.dials.payer(GHOST), budgets.dials.payer(ALICE)) == (HUB, None)
    budgets.answered(GHOST)
    assert budgets.dials.payer(GHOST) is None
