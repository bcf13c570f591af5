"""Deadlines, actions and ignored events of both machines."""

from __future__ import annotations

from bacalhau_p2p.components.ledger import SPARE_DEADLINES, Deadlines, Ledger


def test_things_are_due_in_the_order_of_their_deadlines():
    deadlines = Deadlines[str]()
    assert (deadlines.next(), deadlines.pop(100)) == (None, None)
    for key, due in (("b", 2), ("a", 1), ("c", 2)):
        deadlines.set(key, due)
    assert deadlines.next() == 1
    assert deadlines.pop(0.5) is None
    assert [deadlines.pop(2) for _ in range(4)] == ["a", "b", "c", None]
    assert deadlines.next() is None


def test_a_later_deadline_replaces_an_earlier_one_and_the_other_way_round():
    deadlines = Deadlines[str]()
    deadlines.set("a", 1)
    deadlines.set("a", 5)
    assert (deadlines.next(), deadlines.pop(4)) == (5, None)
    deadlines.set("a", 3)
    assert [deadlines.pop(10), deadlines.pop(10)] == ["a", None]


def test_actions_are_taken_once_and_ignored_events_are_counted_by_kind_and_place():
    ledger = Ledger[str]()
    ledger.actions.append("store")
    assert [ledger.take_actions(), ledger.take_actions()] == [["store"], []]
    for event in (1, 2, "text"):
        ledger.ignore(event, "in Lost")
    assert ledger.ignored == {"int in Lost": 2, "str in Lost": 1}


def test_deadlines_that_were_replaced_do_not_pile_up():
    deadlines = Deadlines()
    for number in range(SPARE_DEADLINES * 5):
        deadlines.set("a", 1000.0 + number)
        deadlines.set(f"dropped-{number}", 5.0)
        deadlines.drop(f"dropped-{number}")
    deadlines.set("b", 7.0)
    assert len(deadlines._heap) < SPARE_DEADLINES + 10
    assert [deadlines.pop(9999.0), deadlines.pop(9999.0), deadlines.pop(9999.0)] == ["b", "a", None]
