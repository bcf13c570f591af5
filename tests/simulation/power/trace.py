"""What a database does to its files, in order, and the states in which its commits leave it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    CREATE = "create"
    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    DELETE = "delete"
    SYNC_FOLDER = "sync of the folder"
    """Whether the files exist, not what is in them."""


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that was done to a file."""

    path: str
    kind: Kind
    offset: int = 0
    """Where a write begins, or the new size after a truncation."""
    data: bytes = b""


Row = tuple[object, ...]
State = tuple[tuple[str, tuple[Row, ...]], ...]
"""What a database holds: its non-empty tables, each with its rows in order."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A COMMIT of this database has returned, and left it in this state."""

    path: str
    state: State


class Trace:
    """Operations, commits, and whatever else is added between them."""

    def __init__(self) -> None:
        self.entries: list[Any] = []


def state_of(execute: Any) -> State:
    """The contents of a database, by the `execute` of its connection.

    A place of AUTOINCREMENT that was never given is none.
    """
    tables = [
        name for (name,) in execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    ]
    selects = [(name, f"SELECT * FROM {name}{' WHERE seq' * (name == 'sqlite_sequence')}") for name in tables]
    read = [(name, tuple(sorted(map(tuple, execute(select)), key=repr))) for name, select in selects]
    return tuple((name, rows) for name, rows in read if rows)


def rows_of(state: State, table: str) -> tuple[Row, ...]:
    """In the order of the table's columns."""
    return dict(state).get(table, ())
