"""Undoes the changes of a block that raises, so that a machine is never left with half a change.

What a machine changes keeps a journal for the length of a block: attributes of `Undoable` objects, and the
items of `UndoableDict` and `UndoableSet`. Outside of a block they behave, and cost, as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_MISSING: Any = object()

# Every event of a machine passes here: journal entries are tuples, and the methods are looked up once.
_Undo = tuple[Any, ...]
"""A callable and its arguments."""
_journal: ContextVar[list[_Undo] | None] = ContextVar("journal", default=None)
_current = _journal.get
_set_attribute = object.__setattr__
_set_item: Callable[..., None] = dict.__setitem__
_remove_item: Callable[..., object] = dict.pop
_add_member: Callable[..., None] = set.add
_discard_member: Callable[..., None] = set.discard


class undone_on_error:  # noqa: N801 - used like contextlib.suppress
    """Undo what the block changed if it raises. Blocks may be nested: an inner one undoes its own changes.

    `undo` is called with `arguments` after all that.
    """

    __slots__ = ("_journal", "_outer")

    def __init__(self, *undo: Any) -> None:
        self._journal: list[_Undo] = [undo] if undo else []

    def __enter__(self) -> None:
        self._outer = _current()
        _journal.set(self._journal)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outer = self._outer
        if kind is None:
            _journal.set(outer)
            if outer is not None:
                outer += self._journal
            return
        _journal.set(None)  # undoing is not a change to undo
        try:
            while self._journal:
                undo, *arguments = self._journal.pop()
                undo(*arguments)
        finally:
            _journal.set(outer)


def on_undo(undo: Callable[..., object], *arguments: Any) -> None:
    """Call `undo` if the present block raises. For changes that are not those of the classes below."""
    journal = _current()
    if journal is not None:
        journal.append((undo, *arguments))


def new(make: Callable[..., V], *arguments: Any) -> V:
    """What `make` returns: new objects, so that nothing of them is to be undone. It changes nothing else."""
    journal = _current()
    _journal.set(None)
    try:
        return make(*arguments)
    finally:
        _journal.set(journal)


class Undoable:
    """An object whose attributes are restored."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        journal = _current()
        if journal is not None:
            before = getattr(self, name, _MISSING)
            if before is not _MISSING:  # else the object is new
                journal.append((_set_attribute, self, name, before))
        _set_attribute(self, name, value)


class UndoableDict(dict[K, V]):
    """A dict whose items are restored, not their order. Change it only by the methods below."""

    __slots__ = ()

    def __setitem__(self, key: K, value: V) -> None:
        journal = _current()
        if journal is not None:
            self._record(journal, key)
        _set_item(self, key, value)

    def __delitem__(self, key: K) -> None:
        journal = _current()
        if journal is not None:
            self._record(journal, key)
        super().__delitem__(key)

    def pop(self, key: K, default: Any = _MISSING) -> Any:
        journal = _current()
        if journal is not None and key in self:
            self._record(journal, key)
        return super().pop(key) if default is _MISSING else _remove_item(self, key, default)

    def update(self, other: Any = (), /, **named: Any) -> None:
        for key, value in dict(other, **named).items():
            self[key] = value

    def _record(self, journal: list[_Undo], key: K) -> None:
        before = self.get(key, _MISSING)
        journal.append(
            (_remove_item, self, key, None) if before is _MISSING else (_set_item, self, key, before)
        )

    def _not_undoable(self, *args: Any, **named: Any) -> Any:
        raise TypeError("this change of an UndoableDict could not be undone")

    __ior__ = setdefault = popitem = clear = _not_undoable


class UndoableSet(set[K]):
    """A set whose members are restored. Change it only by `add` and `discard`."""

    __slots__ = ()

    def add(self, item: K) -> None:
        if item not in self:
            on_undo(_discard_member, self, item)
            super().add(item)

    def discard(self, item: object) -> None:
        if item in self:
            on_undo(_add_member, self, item)
            super().discard(item)

    def _not_undoable(self, *args: Any, **named: Any) -> Any:
        raise TypeError("this change of an UndoableSet could not be undone")

    __ior__ = __iand__ = __isub__ = __ixor__ = _not_undoable
    update = remove = pop = clear = _not_undoable
