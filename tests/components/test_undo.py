"""What a block that raises has changed is as it was before: `undo`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from bacalhau_p2p.components.undo import Undoable, UndoableDict, UndoableSet, new, on_undo, undone_on_error


@dataclass(slots=True)
class Thing(Undoable):
    number: int = 1
    items: dict[str, int] = field(default_factory=UndoableDict)
    members: set[str] = field(default_factory=UndoableSet)


def change(thing: Thing) -> None:
    thing.number += 1
    thing.number += 1
    thing.items["a"] = 2
    thing.items["new"] = 3
    thing.items.pop("b")
    thing.items.pop("missing", None)
    thing.items.update({"c": 9})
    del thing.items["c"]
    thing.members.add("new")
    thing.members.discard("old")


@pytest.fixture
def thing():
    return Thing(1, UndoableDict(a=1, b=2, c=3), UndoableSet({"old"}))


def change_and_fail(thing: Thing) -> None:
    with undone_on_error():
        change(thing)
        raise KeyError


def nested(thing: Thing) -> None:
    with undone_on_error():
        thing.number = 5
        with suppress(KeyError):
            change_and_fail(thing)
        assert thing.number == 5
        with undone_on_error():
            thing.items["a"] = 7
        raise ValueError


def test_a_block_that_raises_changes_nothing(thing):
    with pytest.raises(KeyError):
        change_and_fail(thing)
    assert thing == Thing(1, UndoableDict(a=1, b=2, c=3), UndoableSet({"old"}))


def test_a_block_that_ends_well_keeps_its_changes(thing):
    with undone_on_error():
        change(thing)
    assert thing == Thing(3, UndoableDict(a=2, new=3), UndoableSet({"new"}))


def test_an_inner_block_is_undone_alone_and_an_outer_one_with_the_inner_ones(thing):
    with pytest.raises(ValueError):
        nested(thing)
    assert thing == Thing(1, UndoableDict(a=1, b=2, c=3), UndoableSet({"old"}))


def test_other_changes_are_undone_by_calls_and_the_block_s_own_call_comes_last(thing):
    called: list[object] = []

    def record(value: object) -> None:
        called.append((value, thing.number))

    def block() -> None:
        with undone_on_error(record, "last"):
            on_undo(record, "first")
            thing.number = 2
            raise KeyError

    with pytest.raises(KeyError):
        block()
    assert called == [("first", 1), ("last", 1)]
    on_undo(record, "outside of a block")
    assert len(called) == 2


def test_changes_that_could_not_be_undone_are_refused(thing):
    for change_it in (thing.items.clear, thing.items.popitem, thing.members.clear, thing.members.pop):
        with pytest.raises(TypeError):
            change_it()
    with pytest.raises(TypeError):
        thing.items |= {"x": 1}


def test_what_is_new_is_made_without_a_journal_and_undone_with_what_holds_it(thing):
    held = UndoableDict[str, Thing]()
    with suppress(ArithmeticError), undone_on_error():
        held["new"] = new(Thing, 7)
        held["new"].number = 8
        thing.number = 2
        raise ArithmeticError
    assert (held, thing.number) == ({}, 1)
