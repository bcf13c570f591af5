"""SQLite on a virtual file system that does everything and writes it down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from tests.simulation.power.trace import Committed, Kind, Operation, Trace, state_of


class Connection(apsw.Connection):
    """As much of `sqlite3.Connection` as our stores use; traces the state after each commit."""

    io_trace: Trace

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
            self.io_trace.entries.append(Committed(self.filename, state_of(super().execute)))
        return cursor


_NAMED_ON_DISK = (apsw.SQLITE_OPEN_MAIN_JOURNAL, apsw.SQLITE_OPEN_WAL)
"""Files with whose first sync SQLite syncs their folder too, on Unix."""


class Recorder(apsw.VFS):
    """The machine's file system, with a trace of what is done to it."""

    def __init__(self, trace: Trace, name: str) -> None:
        super().__init__(name, "")
        self.vfs_name = name
        self._trace = trace

    def connect(self, path: Path, *, checkpoint: int) -> Connection:
        """A database on this file system, with a checkpoint every so many pages."""
        connection = Connection(str(path), vfs=self.vfs_name)
        connection.io_trace = self._trace
        connection.wal_autocheckpoint(checkpoint)
        return connection

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        fresh = not Path(path).exists()
        named = any(flags[0] & kind for kind in _NAMED_ON_DISK)
        file = _File(path, flags, self._trace, sync_folder=fresh and named)
        if fresh:
            self._trace.entries.append(Operation(path, Kind.CREATE))
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self._trace.entries.append(Operation(filename, Kind.DELETE))
        if syncdir:
            self._trace.entries.append(Operation(str(Path(filename).parent), Kind.SYNC_FOLDER))


class _File(apsw.VFSFile):
    def __init__(self, path: str, flags: list[int], trace: Trace, *, sync_folder: bool) -> None:
        super().__init__("", path, flags)
        self._path = path
        self._trace = trace
        self._sync_folder = sync_folder

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._trace.entries.append(Operation(self._path, Kind.WRITE, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._trace.entries.append(Operation(self._path, Kind.TRUNCATE, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._trace.entries.append(Operation(self._path, Kind.SYNC))
        if self._sync_folder:
            self._trace.entries.append(Operation(str(Path(self._path).parent), Kind.SYNC_FOLDER))
            self._sync_folder = False
