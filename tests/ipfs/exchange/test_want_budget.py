from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.ipfs.exchange import want_budget
from bacalhau_p2p.ipfs.exchange.want_budget import WANT_BURST, WANTS_PER_SECOND, WantBudget
from bacalhau_p2p.model.base import PeerID

ALICE, BOB = PeerID("alice"), PeerID("bob")


async def waited(budget: WantBudget, peer: PeerID) -> float:
    """Seconds that the peer has to wait."""
    began = trio.current_time()
    await budget.wait(peer)
    return trio.current_time() - began


async def test_a_peer_may_ask_for_a_burst_and_then_waits_until_it_has_paid(autojump_clock):
    budget = WantBudget()
    budget.charge(ALICE, WANT_BURST)
    assert await waited(budget, ALICE) == 0
    budget.charge(ALICE, 3 * WANTS_PER_SECOND)
    assert await waited(budget, ALICE) == pytest.approx(3)
    budget.charge(ALICE, WANTS_PER_SECOND)
    assert await waited(budget, ALICE) == pytest.approx(1)


async def test_what_a_peer_asked_is_charged_to_it_alone_and_nothing_costs_nothing(autojump_clock):
    budget = WantBudget()
    budget.charge(ALICE, 10 * WANT_BURST)
    budget.charge(BOB, 0)
    assert await waited(budget, BOB) == 0


async def test_a_pause_gives_back_no_more_than_the_burst(autojump_clock):
    budget = WantBudget()
    budget.charge(ALICE, 1)
    await trio.sleep(1000)
    budget.charge(ALICE, WANT_BURST + WANTS_PER_SECOND)
    assert await waited(budget, ALICE) == pytest.approx(1)


async def test_a_charge_while_it_waits_makes_a_peer_wait_longer(autojump_clock):
    budget = WantBudget()
    budget.charge(ALICE, WANT_BURST + WANTS_PER_SECOND)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(budget.wait, ALICE)
        await trio.sleep(0.5)
        budget.charge(ALICE, WANTS_PER_SECOND)
        assert await waited(budget, ALICE) == pytest.approx(1.5)


async def test_the_number_of_peers_that_are_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(want_budget, "MAX_PEERS", 10)
    budget = WantBudget()
    for number in range(100):
        budget.charge(PeerID(f"{number}"), 1)
    assert len(budget._paid_at) <= 10
