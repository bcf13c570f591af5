"""What reaches the disk, and what a power cut would leave of it.

SQLite runs on a virtual file system that does everything and writes it down: each write, truncation,
sync, creation and deletion of a file, in order. From that tape the files are built as they may lie on
the disk after a power cut at any place: what was synced is there; of the rest any part may be, also
half a write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any

import apsw

SECTOR = 512
"""Bytes that a disk writes wholly or not at all."""


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
    """Of a write; of a truncation the new size."""
    data: bytes = b""


Row = tuple[object, ...]
State = tuple[tuple[str, tuple[Row, ...]], ...]
"""What a database holds: its tables that are not empty, each with its rows, in order."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A transaction of this database returned from its COMMIT, which left it in this state."""

    path: str
    state: State


class Tape:
    """Operations, commits, and whatever else its user puts between them."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def connect(self, vfs: Recorder, path: Path, *, checkpoint: int) -> Connection:
        """A database on the recording file system, with a checkpoint every so many pages."""
        connection = Connection(str(path), vfs=vfs.vfs_name)
        connection.tape = self
        connection.wal_autocheckpoint(checkpoint)
        return connection


class Connection(apsw.Connection):
    """As much of `sqlite3.Connection` as our stores use; notes the state after each commit."""

    tape: Tape

    def execute(
        self,
        statements: str,
        bindings: Any = None,
        *,
        can_cache: bool = True,
        prepare_flags: int = 0,
        explain: int = -1,
    ) -> apsw.Cursor:
        cursor = super().execute(
            statements, bindings, can_cache=can_cache, prepare_flags=prepare_flags, explain=explain
        )
        if statements == "COMMIT":
            self.tape.entries.append(Committed(self.filename, state_of(super().execute)))
        return cursor


def state_of(execute: Any) -> State:
    """The contents of a database, by the `execute` of its connection."""
    tables = [
        name for (name,) in execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    ]
    read = [(name, tuple(sorted(map(tuple, execute(f"SELECT * FROM {name}")), key=repr))) for name in tables]
    return tuple((name, rows) for name, rows in read if rows)


def rows_of(state: State, table: str) -> tuple[Row, ...]:
    """In the order of the table's columns."""
    return dict(state).get(table, ())


_NAMED_ON_DISK = (apsw.SQLITE_OPEN_MAIN_JOURNAL, apsw.SQLITE_OPEN_WAL)
"""Files with whose first sync SQLite syncs their folder too, on Unix."""


class Recorder(apsw.VFS):
    """The machine's file system, with a tape of what is done to it."""

    def __init__(self, tape: Tape, name: str) -> None:
        super().__init__(name, "")
        self.vfs_name = name
        self._tape = tape

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        fresh = not Path(path).exists()
        named = any(flags[0] & kind for kind in _NAMED_ON_DISK)
        file = _File(path, flags, self._tape, sync_folder=fresh and named)
        if fresh:
            self._tape.entries.append(Operation(path, Kind.CREATE))
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self._tape.entries.append(Operation(filename, Kind.DELETE))
        if syncdir:
            self._tape.entries.append(Operation(str(Path(filename).parent), Kind.SYNC_FOLDER))


class _File(apsw.VFSFile):
    def __init__(self, path: str, flags: list[int], tape: Tape, *, sync_folder: bool) -> None:
        super().__init__("", path, flags)
        self._path = path
        self._tape = tape
        self._sync_folder = sync_folder

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._tape.entries.append(Operation(self._path, Kind.WRITE, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._tape.entries.append(Operation(self._path, Kind.TRUNCATE, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._tape.entries.append(Operation(self._path, Kind.SYNC))
        if self._sync_folder:
            self._tape.entries.append(Operation(str(Path(self._path).parent), Kind.SYNC_FOLDER))
            self._sync_folder = False


class Loss(Enum):
    """What becomes of the operations after a file's last sync."""

    ALL = "all of it lost"
    NONE = "nothing lost"
    REST = "the last ones lost"
    SOME = "any of them lost"
    TORN = "any of them lost, and some writes torn"


@dataclass(slots=True)
class Disk:
    """The files of a machine: what is safe of each, and what was done to it since."""

    _safe: dict[str, bytearray | None] = field(default_factory=dict)
    _since: dict[str, list[Operation]] = field(default_factory=dict)

    def take(self, operation: Operation) -> None:
        path = operation.path
        if operation.kind is Kind.SYNC:
            self._safe[path] = _applied(self._safe.get(path), self._since.pop(path, ()))
        elif operation.kind is Kind.SYNC_FOLDER:
            self._sync_folder(path)
        else:
            self._since.setdefault(path, []).append(operation)

    def _sync_folder(self, folder: str) -> None:
        for path, since in self._since.items():
            places = [n for n, o in enumerate(since) if o.kind in (Kind.CREATE, Kind.DELETE)]
            if places and str(Path(path).parent) == folder:
                end = places[-1] + 1
                self._safe[path] = _applied(None, since[end - 1 : end])
                del since[:end]

    def after_cut(self, loss: Loss, rng: Random) -> Iterator[tuple[str, bytes]]:
        """The files, by path, as they may lie there when the power is back."""
        for path in sorted({*self._safe, *self._since}):
            safe, since = self._safe.get(path), self._since.get(path, [])
            left = _applied(None if safe is None else bytearray(safe), _survivors(since, loss, rng))
            if left is not None:
                yield path, bytes(left)


def _applied(content: bytearray | None, operations: Iterable[Operation]) -> bytearray | None:
    """A file, None where there is none, after these operations."""
    for operation in operations:
        match operation.kind:
            case Kind.DELETE:
                content = None
                continue
            case Kind.CREATE:
                content = bytearray()
                continue
        if content is None:  # of a file whose creation was lost
            content = bytearray()
        end = operation.offset + len(operation.data)
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        if operation.kind is Kind.TRUNCATE:
            del content[operation.offset :]
        else:
            content[operation.offset : end] = operation.data
    return content


def _survivors(since: Sequence[Operation], loss: Loss, rng: Random) -> Sequence[Operation]:
    match loss:
        case Loss.ALL:
            return ()
        case Loss.NONE:
            return since
        case Loss.REST:
            return since[: rng.randint(0, len(since))]
    kept = [operation for operation in since if rng.random() < 0.6]
    return [part for operation in kept for part in _torn(operation, rng)] if loss is Loss.TORN else kept


def _torn(operation: Operation, rng: Random) -> Iterator[Operation]:
    """Some of the write's sectors."""
    if operation.kind is not Kind.WRITE or rng.random() < 0.5:
        yield operation
        return
    start, end = operation.offset, operation.offset + len(operation.data)
    for sector in range(start // SECTOR * SECTOR, end, SECTOR):
        first, last = max(sector, start), min(sector + SECTOR, end)
        if rng.random() < 0.5:
            yield Operation(operation.path, Kind.WRITE, first, operation.data[first - start : last - start])
