"""When executions are looked at again: `watchlist`. `test_silent_nodes` has what is seen there."""

from __future__ import annotations

from bacalhau_p2p.model.base import ExecutionID
from bacalhau_p2p.requester.watchlist import Watchlist

E, F = ExecutionID("e"), ExecutionID("f")


def test_each_is_looked_at_when_it_is_due_and_decided_anew():
    watchlist = Watchlist()
    watchlist.set(E, 10, unreachable=False)
    watchlist.set(F, 20, unreachable=False)
    assert watchlist.take_due(5) == []
    assert watchlist.take_due(15) == [E]
    assert watchlist.take_changed() == [E]
    assert watchlist.take_changed() == []
    assert watchlist.take_due(30) == [F]


def test_those_on_unreachable_nodes_are_decided_anew_together():
    watchlist = Watchlist()
    watchlist.set(E, 10, unreachable=True)
    watchlist.set(F, 10, unreachable=False)
    watchlist.renew_unreachable()
    assert watchlist.take_changed() == [E]
    watchlist.set(E, 10, unreachable=False)
    watchlist.renew_unreachable()
    assert watchlist.take_changed() == []


def test_what_has_ended_is_not_looked_at():
    watchlist = Watchlist()
    watchlist.set(E, 10, unreachable=True)
    watchlist.renew(E)
    watchlist.drop(E)
    watchlist.renew_unreachable()
    assert (watchlist.take_due(20), watchlist.take_changed()) == ([], [])
