"""Who is let in by lists of peers."""

from __future__ import annotations

from bacalhau_p2p.model.access_list import EVERYBODY, AccessList

ALICE, BOB, CAROL = "alice", "bob", "carol"


def test_without_lists_everybody_is_let_in():
    assert EVERYBODY.admits(ALICE)


def test_only_those_of_the_allow_list_are_let_in():
    only = AccessList(allowed=frozenset({ALICE}))
    assert [only.admits(peer) for peer in (ALICE, BOB)] == [True, False]


def test_the_deny_list_wins():
    some = AccessList(allowed=frozenset({ALICE, BOB}), denied=frozenset({BOB}))
    assert [some.admits(peer) for peer in (ALICE, BOB, CAROL)] == [True, False, False]
    assert AccessList(denied=frozenset({BOB})).admits(CAROL)
