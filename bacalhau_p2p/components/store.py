"""The database of a component: its records, with its outbox and inbox."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from bacalhau_p2p.bprotocol.codec import MessageID
from bacalhau_p2p.bprotocol.delivery import OutboxMessage, ProcessedMessage
from bacalhau_p2p.components.commit_plan import Commit
from bacalhau_p2p.components.outbox import load_messages, write_messages
from bacalhau_p2p.model.base import UnixSeconds
from bacalhau_p2p.runtime.database import Migration, open_database, rehearsal, transaction


class ComponentStore(ABC):
    """For one thread. Raises SettingsError when the file is not ours, StoreFailed."""

    def __init__(self, path: Path, migrations: Sequence[Migration], *, power_safe: bool) -> None:
        """The migrations contain the tables of the outbox and inbox. Without `power_safe` no commit waits for
        the disk, and a power cut may undo what was promised."""
        self.db = open_database(path, migrations)
        self._power_safe = power_safe

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

    @abstractmethod
    def _write(self, commit: Commit) -> None:
        """Write the records and notes, within the open transaction."""
