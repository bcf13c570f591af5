"""Undoes the changes of a block that raises, so that a machine is never left with half a change.

What a machine changes keeps a journal for the length of a block: attributes of `Undoable` objects, and the
items of `UndoableDict` and `UndoableSet`. Outside of a block they behave, and cost, as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_MISSING: Any = object()
_journal: ContextVar[list[Callable[[], object]] | None] = ContextVar("journal", default=None)


@contextmanager
def undone_on_error() -> Iterator[None]:
    """Undo what the block changed if it raises. Blocks may be nested: an inner one undoes its own changes."""
    outer = _journal.get()
    journal: list[Callable[[], object]] = []
    _journal.set(journal)
    try:
        yield
    except BaseException:
        _journal.set(None)  # undoing is not a change to undo
        while journal:
            journal.pop()()
        raise
    else:
        if outer is not None:
            outer += journal
    finally:
        _journal.set(outer)


def on_undo(undo: Callable[[], object]) -> None:
    """Call `undo` if the present block raises. For changes that are not those of the classes below."""
    journal = _journal.get()
    if journal is not None:
        journal.append(undo)


class Undoable:
    """An object whose attributes are restored."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        journal = _journal.get()
        if journal is not None:
            before = getattr(self, name, _MISSING)
            if before is not _MISSING:  # else the object is new
                journal.append(lambda: object.__setattr__(self, name, before))
        object.__setattr__(self, name, value)


class UndoableDict(dict[K, V]):
    """A dict whose items are restored, not their order. Change it only by the methods below."""

    __slots__ = ()

    def __setitem__(self, key: K, value: V) -> None:
        self._record(key)
        super().__setitem__(key, value)

    def __delitem__(self, key: K) -> None:
        self._record(key)
        super().__delitem__(key)

    def pop(self, key: K, default: Any = _MISSING) -> Any:
        self._record(key)
        return super().pop(key) if default is _MISSING else super().pop(key, default)

    def update(self, other: Any = (), /, **named: Any) -> None:
        for key, value in dict(other, **named).items():
            self[key] = value

    def _record(self, key: K) -> None:
        journal = _journal.get()
        if journal is None:
            return
        before = self.get(key, _MISSING)
        if before is _MISSING:
            journal.append(lambda: dict.pop(self, key, None))
        else:
            journal.append(lambda: dict.__setitem__(self, key, before))

    def _not_undoable(self, *args: Any, **named: Any) -> Any:
        raise TypeError("this change of an UndoableDict could not be undone")

    __ior__ = setdefault = popitem = clear = _not_undoable


class UndoableSet(set[K]):
    """A set whose members are restored. Change it only by `add` and `discard`."""

    __slots__ = ()

    def add(self, item: K) -> None:
        if item not in self:
            on_undo(lambda: set.discard(self, item))
            super().add(item)

    def discard(self, item: object) -> None:
        if item in self:
            on_undo(lambda: set.add(self, item))  # type: ignore[misc]
            super().discard(item)

    def _not_undoable(self, *args: Any, **named: Any) -> Any:
        raise TypeError("this change of an UndoableSet could not be undone")

    __ior__ = __iand__ = __isub__ = __ixor__ = _not_undoable
    update = remove = pop = clear = _not_undoable
