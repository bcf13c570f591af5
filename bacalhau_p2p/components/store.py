"""The database of a component: its records, with its outbox and inbox."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TypeVar

from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.delivery import OutboxMessage, ProcessedMessage
from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.outbox import load_messages, prune_messages, write_messages
from bacalhau_p2p.components.packing import Packed
from bacalhau_p2p.model.base import Model, UnixSeconds
from bacalhau_p2p.runtime.database import Migration, open_database, rehearsal, transaction
from bacalhau_p2p.runtime.logs import get_logger

log = get_logger(__name__)

_M = TypeVar("_M", bound=Model)


_QUARANTINE = """
CREATE TABLE IF NOT EXISTS quarantine (
    "table" TEXT NOT NULL, key TEXT NOT NULL, record BLOB NOT NULL, reason TEXT NOT NULL
)
"""
"""Not a version of the schema: an older program ignores it."""
MAX_REASON = 2000
"""Characters of why a record cannot be read."""


PRUNED_AT_ONCE = 200
"""Rows that one `prune` deletes, so that nothing waits long for it."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of what has ended is kept. What exceeds a limit is deleted; what ended first goes first."""

    seconds: float = inf
    """Age, counted from the end."""
    count: float = inf
    """How many are kept."""


FOR_EVER = Retention()


@dataclass(frozen=True, slots=True)
class Row:
    """The record of a row, and where it is."""

    table: str
    key: dict[str, object]
    """Columns by which it is found."""
    record: Packed


class ComponentStore(ABC):
    """For one thread. Raises SettingsError when the file is not ours, StoreFailed."""

    def __init__(
        self, path: Path, migrations: Sequence[Migration], *, power_safe: bool, first_version: int = 1
    ) -> None:
        """The migrations contain the tables of the outbox and inbox; `first_version` as in `open_database`.
        Without `power_safe` no commit waits for the disk, and a power cut may undo what was promised."""
        self.db = open_database(path, migrations, first_version=first_version)
        self.db.execute(_QUARANTINE)
        self._power_safe = power_safe

    def read(self, decode: Callable[[Packed], _M], row: Row) -> _M | None:
        """The record of a row; None if it cannot be read. Then it is in the table `quarantine` and not in
        its own any more, so that it is in nobody's way."""
        try:
            return decode(row.record)
        except Exception as error:  # noqa: BLE001 - a record that cannot be read, for whatever reason
            self._set_aside(row, error)
            return None

    def _set_aside(self, row: Row, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"[:MAX_REASON].encode("utf-8", "replace").decode()
        log.error("record_set_aside", table=row.table, key=row.key, reason=reason)
        where = " AND ".join(f"{name} = ?" for name in row.key)
        with transaction(self.db, power_safe=False):
            self.db.execute(
                'INSERT INTO quarantine ("table", key, record, reason) VALUES (?, ?, ?, ?)',
                (row.table, json.dumps(row.key), row.record, reason),
            )
            self._detach(row)
            self.db.execute(f"DELETE FROM {row.table} WHERE {where}", tuple(row.key.values()))  # noqa: S608

    def _detach(self, row: Row) -> None:
        """Take care of what refers to a row that is about to be deleted, within the open transaction."""
        return

    def close(self) -> None:
        self.db.close()

    def commit(self, commit: Commit, delivered: Sequence[MessageID]) -> None:
        """Write the commit in one transaction, and remove what was `delivered` from the outbox.

        Raises StoreFailed: then nothing of it was written.
        """
        with transaction(self.db, power_safe=commit.power_safe and self._power_safe):
            self._write_all(commit, delivered)

    def rehearse(self, commit: Commit) -> None:
        """Write the commit and roll it back. Raises what `commit` would raise."""
        with rehearsal(self.db):
            self._write_all(commit, ())

    def load_messages(self, now: UnixSeconds) -> tuple[list[OutboxMessage], list[ProcessedMessage]]:
        """The outbox and the inbox, without what has expired."""
        return load_messages(self.db, now)

    def _write_all(self, commit: Commit, delivered: Sequence[MessageID]) -> None:
        self._write(commit)
        write_messages(self.db, outbox=commit.outbox, processed=commit.processed, delivered=delivered)

    def prune(self, now: UnixSeconds) -> bool:
        """Delete messages that have expired, and some of what the component keeps only for a while. Returns
        whether there may be more to delete: call it again soon. Each call takes a few milliseconds."""
        prune_messages(self.db, now)
        return False

    @abstractmethod
    def _write(self, commit: Commit) -> None:
        """Write the records and notes, within the open transaction."""
